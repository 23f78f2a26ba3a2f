"""Draws the demo's data set and writes it in the public JSON format with its pictures.

Four files share one image folder: `captions.json` (stage 1), `conversations.json` (stage 2), `vqa_train.json`
(fine-tuning) and `vqa_test.json`; `conversations_test.json` serves the retrieval figures. Test pictures are drawn from
random numbers of their own, and a test picture that equals a training picture would be refused.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from exgra_adapter.data.records import Record, Turn, write_records
from exgra_adapter.demo.phantoms import draw_phantom
from exgra_adapter.demo.scenes import Scene, Topic, ask

_SPLITS = ("train", "test")


@dataclass(frozen=True)
class DemoData:
    """The data set on disk.

    Attributes:
        images: The folder with the pictures.
        captions: Stage 1, one caption per training picture.
        conversations: Stage 2, a turn on every topic per training picture, with extended answers.
        vqa_train: Fine-tuning, one question per record.
        vqa_test: The held-out questions, one per record.
        conversations_test: The held-out pictures with a turn on every topic.
        topics: The topic of each VQA question by record id, for the tables of the report.
        texts: Every text of the training files, for the tokenizer.
    """

    images: Path
    captions: Path
    conversations: Path
    vqa_train: Path
    vqa_test: Path
    conversations_test: Path
    topics: dict[str, Topic]
    texts: tuple[str, ...]


def write_dataset(
    folder: Path,
    train_pictures: int,
    test_pictures: int,
    questions: int,
    seed: int,
    console_progress: bool = True,
) -> DemoData:
    """Draws the pictures, asks the questions and writes everything below `folder`.

    Args:
        folder: Where to write; made if it does not exist.
        train_pictures: Number of training pictures, at least 1.
        test_pictures: Number of held-out pictures, at least 1.
        questions: VQA questions per picture, 1 to 4.
        seed: The same seed writes the same bytes.
        console_progress: Whether to show a progress bar.

    Raises:
        ValueError: A number is out of its range, or a held-out picture repeats a training picture.

    Example:
        >>> import pathlib, tempfile
        >>> data = write_dataset(pathlib.Path(tempfile.mkdtemp()), 2, 1, 2, seed=0, console_progress=False)
        >>> len(data.topics), sorted(path.name for path in data.images.iterdir())
        (6, ['test-0000.png', 'train-0000.png', 'train-0001.png'])
    """
    if min(train_pictures, test_pictures) < 1:
        raise ValueError(
            "write_dataset: train_pictures and test_pictures must be at least 1; got "
            f"{train_pictures} and {test_pictures}. Draw at least one of each."
        )
    if not 1 <= questions <= 4:
        raise ValueError(
            f"write_dataset: questions must be between 1 and 4; got {questions}. "
            "Every picture has at least four topics to ask about."
        )
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    conversations: dict[str, list[Record]] = {split: [] for split in _SPLITS}
    vqa: dict[str, list[Record]] = {split: [] for split in _SPLITS}
    captions: list[Record] = []
    topics: dict[str, Topic] = {}
    seen: dict[str, str] = {}
    jobs = [("train", number) for number in range(train_pictures)] + [
        ("test", number) for number in range(test_pictures)
    ]
    for split, number in tqdm(jobs, desc="drawing", unit="picture", disable=not console_progress, leave=False):
        # One stream per picture: the same picture whatever the size of the set.
        generator = np.random.default_rng([seed, _SPLITS.index(split), number])
        scene = Scene.draw(generator)
        name = f"{split}-{number:04d}"
        picture = draw_phantom(scene, generator)
        _refuse_repetition(picture, split, name, seen)
        Image.fromarray(picture).save(images / f"{name}.png")
        if split == "train":
            turn = Turn("Describe the image.", scene.caption(), scene.caption())
            captions.append(Record(name, f"{name}.png", (turn,)))
        conversation = tuple(ask(scene, topic).turn for topic in _choose(scene, len(scene.topics()), generator))
        conversations[split].append(Record(name, f"{name}.png", conversation))
        for topic in _choose(scene, questions, generator):
            question = ask(scene, topic, generator)
            identifier = f"{name}-{question.topic}"
            topics[identifier] = question.topic
            vqa[split].append(Record(identifier, f"{name}.png", (question.turn,), question.answer_type))
    files = {
        "captions": captions,
        "conversations": conversations["train"],
        "vqa_train": vqa["train"],
        "vqa_test": vqa["test"],
        "conversations_test": conversations["test"],
    }
    for key, records in files.items():
        write_records(folder / f"{key}.json", records)
    return DemoData(
        images=images,
        **{key: folder / f"{key}.json" for key in files},
        topics=topics,
        texts=tuple(_texts([*captions, *conversations["train"], *vqa["train"]])),
    )


def _choose(scene: Scene, count: int, generator: np.random.Generator) -> list[Topic]:
    topics = scene.topics()
    return [topics[index] for index in generator.permutation(len(topics))[:count]]


def _refuse_repetition(picture: NDArray[np.uint8], split: str, name: str, seen: dict[str, str]) -> None:
    digest = hashlib.sha256(picture.tobytes()).hexdigest()
    earlier = seen.setdefault(digest, name)
    if split == "test" and earlier != name:
        raise ValueError(
            f"write_dataset: held-out pictures must be new; got {name} equal to {earlier}. Use another seed."
        )


def _texts(records: list[Record]) -> list[str]:
    texts = []
    for record in records:
        for turn in record.turns:
            texts += [turn.question, turn.answer, turn.extended_answer or ""]
    return texts
