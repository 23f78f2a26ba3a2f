"""The ground truth of one phantom and the questions, answers and extended answers that follow from it.

A picture and its texts are generated from the same `Scene`, so they cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from exgra_adapter.data.records import Turn

Modality = Literal["CT", "MRI", "X-ray", "ultrasound"]
Organ = Literal["lungs", "brain", "kidney", "liver"]
Side = Literal["left", "right"]
Size = Literal["small", "large"]
AnswerType = Literal["OPEN", "CLOSED"]
Topic = Literal["modality", "organ", "presence", "count", "side", "size"]

MODALITIES: tuple[Modality, ...] = get_args(Modality)
ORGANS: tuple[Organ, ...] = get_args(Organ)
TOPICS: tuple[Topic, ...] = get_args(Topic)
MAX_LESIONS = 3
_COUNT_PROBABILITIES = (0.4, 0.2, 0.2, 0.2)
_COUNTS = ("zero", "one", "two", "three")
_LOOKS: dict[Modality, str] = {
    "CT": "a CT scan",
    "MRI": "an MRI scan",
    "X-ray": "an X-ray",
    "ultrasound": "an ultrasound image",
}


@dataclass(frozen=True)
class Scene:
    """What is on one picture. Left and right mean the side of the picture, not of the patient.

    Args:
        modality: the look of the picture.
        organ: the organ shown.
        count: the number of lesions, 0 to 3.
        side: the half of the picture that holds every lesion; None exactly when there is no lesion.
        size: the size of every lesion; None exactly when there is no lesion.

    Raises:
        ValueError: the count is out of range, or side and size do not fit it.

    Example:
        >>> Scene("CT", "liver", 2, "left", "large").caption()
        'A CT scan of the liver with two large lesions on the left side.'
    """

    modality: Modality
    organ: Organ
    count: int
    side: Side | None = None
    size: Size | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.count <= MAX_LESIONS:
            raise ValueError(f"Scene: count must be between 0 and {MAX_LESIONS}; got {self.count}. Draw fewer lesions.")
        if (self.side is None) != (self.count == 0) or (self.size is None) != (self.count == 0):
            raise ValueError(
                f"Scene: side and size must be given exactly when there are lesions; got count={self.count}, "
                f"side={self.side!r}, size={self.size!r}. Leave both out for a picture without lesions."
            )

    @classmethod
    def draw(cls, generator: np.random.Generator) -> Scene:
        """Draws the attributes independently and uniformly, but no lesion in 40 % of the pictures."""
        count = int(generator.choice(MAX_LESIONS + 1, p=_COUNT_PROBABILITIES))
        modality = MODALITIES[generator.integers(len(MODALITIES))]
        organ = ORGANS[generator.integers(len(ORGANS))]
        side: Side = "left" if generator.random() < 0.5 else "right"
        size: Size = "small" if generator.random() < 0.5 else "large"
        return cls(modality, organ, count, side if count else None, size if count else None)

    def findings(self) -> str:
        """Says what the picture shows besides the organ, e.g. 'one small lesion on the right side'."""
        if self.count == 0:
            return "no lesion"
        return f"{_COUNTS[self.count]} {self.size} {_lesions(self.count)} on the {self.side} side"

    def caption(self) -> str:
        """Describes the whole picture in one line."""
        look = _LOOKS[self.modality]
        return f"{look[0].upper()}{look[1:]} of the {self.organ} with {self.findings()}."

    def topics(self) -> tuple[Topic, ...]:
        """Returns the topics that can be asked: the side and size of a lesion only where there is one."""
        return TOPICS if self.count else ("modality", "organ", "presence", "count")


@dataclass(frozen=True)
class Question:
    """One question about a scene, with its texts and how its answer is scored."""

    topic: Topic
    answer_type: AnswerType
    turn: Turn


def ask(scene: Scene, topic: Topic, generator: np.random.Generator | None = None) -> Question:
    """Asks about one topic of a scene.

    Without a generator the question is open where the topic allows it ("presence" is always a yes/no question). With
    one, about a third of the questions are put as a proposition that is true half of the time.

    Raises:
        ValueError: the topic does not exist for this scene (the side of no lesion).

    Example:
        >>> question = ask(Scene("MRI", "brain", 1, "left", "small"), "organ")
        >>> question.turn.question, question.turn.answer
        ('Which organ is shown?', 'brain')
        >>> question.turn.extended_answer
        'The brain is shown in an MRI scan.'
    """
    if topic not in scene.topics():
        raise ValueError(
            f"ask: topic must be one of {scene.topics()} for this scene; got {topic!r}. Ask another topic."
        )
    if topic == "presence":
        return _yes_no(scene, topic, "Is a lesion visible?", scene.count > 0)
    if generator is not None and topic != "count" and generator.random() < 1 / 3:
        return _propose(scene, topic, generator)
    lesions = _lesions(scene.count)
    question, answer = {
        "modality": ("What kind of image is this?", scene.modality),
        "organ": ("Which organ is shown?", scene.organ),
        "count": ("How many lesions are visible?", _COUNTS[scene.count]),
        "side": (f"On which side {_be(scene.count)} the {lesions}?", scene.side or ""),
        "size": (f"How large {_be(scene.count)} the {lesions}?", scene.size or ""),
    }[topic]
    return Question(topic, "OPEN", Turn(question, answer, _sentence(scene, topic)))


def _propose(scene: Scene, topic: Topic, generator: np.random.Generator) -> Question:
    """A yes/no question that is true half of the time."""
    verb, lesions = _be(scene.count).capitalize(), _lesions(scene.count)
    propositions: dict[Topic, tuple[str, dict[str, str]]] = {
        "modality": (scene.modality, {value: f"Is this {look}?" for value, look in _LOOKS.items()}),
        "organ": (scene.organ, {value: f"Does the image show the {value}?" for value in ORGANS}),
        "side": (str(scene.side), {value: f"{verb} the {lesions} on the {value} side?" for value in get_args(Side)}),
        "size": (str(scene.size), {value: f"{verb} the {lesions} {value}?" for value in get_args(Size)}),
    }
    truth, questions = propositions[topic]
    others = [value for value in questions if value != truth]
    value = truth if generator.random() < 0.5 else others[generator.integers(len(others))]
    return _yes_no(scene, topic, questions[value], value == truth)


def _yes_no(scene: Scene, topic: Topic, question: str, truth: bool) -> Question:
    answer = "yes" if truth else "no"
    return Question(topic, "CLOSED", Turn(question, answer, f"{answer.capitalize()}. {_sentence(scene, topic)}"))


def _sentence(scene: Scene, topic: Topic) -> str:
    """The extended answer: a whole sentence that ties what was asked to other attributes."""
    look, organ, count = _LOOKS[scene.modality], scene.organ, _COUNTS[scene.count]
    verb, lesions = _be(scene.count), _lesions(scene.count)
    organ_verb = "are" if organ == "lungs" else "is"
    return {
        "modality": f"This is {look} of the {organ}.",
        "organ": f"The {organ} {organ_verb} shown in {look}.",
        "presence": f"The {organ} {'show' if organ == 'lungs' else 'shows'} {scene.findings()}.",
        "count": f"There {verb} {count} {lesions} in {look} of the {organ}.",
        "side": f"The {scene.side} side of the {organ} holds {count} {scene.size} {lesions}.",
        "size": f"The {lesions} on the {scene.side} side of the {organ} {verb} {scene.size}.",
    }[topic]


def _lesions(count: int) -> str:
    return "lesion" if count <= 1 else "lesions"


def _be(count: int) -> str:
    return "is" if count <= 1 else "are"
