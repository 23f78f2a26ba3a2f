"""Extended answers without a language model: question and answer are rewritten into one fuller sentence.

The rewrite is deterministic (templates are picked by a hash of the text), keeps the answer word for word and stays
short: 20 words for answers of up to ten words; longer answers get a few words in front. It stands in where nobody has
asked a large language model for extended answers; it adds no knowledge.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from exgra_adapter.data.records import Record

_SHORT_LIMIT = 20
_OPTIONS = re.compile(r"\(\s*(?:answer|please|choose|options?)\b[^)]*\)\s*[.?]?", re.IGNORECASE)
_LOOK = ("in this image", "as seen in this image", "according to this image")


@dataclass(frozen=True)
class _Rule:
    """Rewrites the questions that `pattern` matches; `{topic}` is what it captured, `{answer}` the answer."""

    pattern: re.Pattern[str]
    templates: tuple[str, ...]


def _rule(pattern: str, *templates: str) -> _Rule:
    return _Rule(re.compile(pattern, re.IGNORECASE), templates)


_BE = r"(?P<be>is|are|was|were)"
_SHOW = r"(?:does|do|did) (?:this|the) (?:image|picture|scan|film) (?:show|contain|include|look like)"
# A question that already says "no" would turn into a double negation.
_NOT = r"(?!no\b)(?:an? |any )?"
_YES = (
    _rule(rf"{_BE} there (?:any )?(?P<topic>.+)", "{answer}, there {be} {topic}", "{answer}, this image shows {topic}"),
    _rule(rf"{_SHOW} (?:any )?(?P<topic>.+)", "{answer}, this image shows {topic}", "{answer}, one can see {topic}"),
    _rule(r"(?P<topic>.+)", '{answer}, judging by this image, to the question "{topic}"'),
)
_NO = (
    _rule(
        rf"{_BE} there {_NOT}(?P<topic>.+)", "{answer}, there {be} no {topic}", "{answer}, this image shows no {topic}"
    ),
    _rule(rf"{_SHOW} {_NOT}(?P<topic>.+)", "{answer}, this image shows no {topic}", "{answer}, one cannot see {topic}"),
    _rule(r"(?P<topic>.+)", '{answer}, judging by this image, to the question "{topic}"'),
)
_OPEN = (
    _rule(
        rf"how many (?P<topic>.+?)(?: {_BE})?(?: (?:there|seen|visible|present))*(?P<place> (?:in|on|at|within) .+)?",
        "the number of {topic}{place} is {answer}",
        "counting {topic}{place} gives {answer}",
    ),
    _rule(
        rf"where (?:in (?:this|the) image )?{_BE} (?P<topic>.+?)(?: located| seen| found)?",
        "the location of {topic} is {answer}",
        "{answer} is the location of {topic}",
    ),
    _rule(
        r"(?:what|which) (?P<topic>(?:imaging |image )?(?:modality|technique|plane|organ system|organ|side|region"
        r"|sequence|view|lobe|part of the body|(?:type|kind) of (?:image|scan|imaging)))\b.*",
        "the {topic} is {answer}",
        "the {topic} can be identified as {answer}",
    ),
    _rule(
        rf"what (?:type|kind) of (?P<topic>.+?) {_BE} .+",
        "the type of {topic} is {answer}",
        "the kind of {topic} can be identified as {answer}",
    ),
    _rule(
        rf"(?:what|which) {_BE} (?P<topic>(?:the|this|that|these|those|his|her)\b.+)",
        "{topic} {be} {answer}",
        "{topic} can be described as {answer}",
    ),
    _rule(
        r"how (?:would|can|do|should) (?:you|one|we) (?:describe|characteri[sz]e) (?P<topic>.+)",
        "{topic} can be described as {answer}",
        "a description of {topic} is {answer}",
    ),
    _rule(
        r"(?P<topic>.+)",
        'to the question "{topic}" this image answers {answer}',
        'asked "{topic}", one answers {answer} from this image',
    ),
)
_PLAIN = ("judging by this image, the answer is {answer}", "this image gives the answer {answer}")
_SENTENCE = ("in this image one sees the following: {answer}", "this image shows the following: {answer}")


@dataclass(frozen=True)
class TemplateExtender:
    """Rewrites question and answer into one fuller sentence.

    Example:
        >>> extender = TemplateExtender()
        >>> extender.extend("Is there a pneumothorax?", "no")
        'No, this image shows no pneumothorax.'
        >>> extender.extend("How many lesions are there?", "3")
        'As seen in this image, the number of lesions is 3.'
    """

    def extend(self, question: str, answer: str) -> str:
        """Returns the extended answer.

        Args:
            question: The question; option suffixes such as `(Answer with either "Yes" or "No").` are left out.
            answer: The answer, which occurs word for word in the result (its first letter may become a capital).
        """
        topic = " ".join(_OPTIONS.sub(" ", question).split()).rstrip(" .?!")
        topic = re.sub(r"\b(?:is/are|are/is)\b", "is", topic, flags=re.IGNORECASE)
        core = " ".join(answer.split()).rstrip(" .?")
        choice = _stable_number(f"{question}\n{answer}")
        if not core or len(core.split()) > _SHORT_LIMIT // 2 or (answer.endswith(".") and len(core.split()) > 4):
            return _finish(_pick(_SENTENCE, choice).format(answer=core or answer))
        for rule in {"yes": _YES, "no": _NO}.get(core.lower(), _OPEN):
            match = rule.pattern.fullmatch(topic)
            if match is None:
                continue
            words = {"place": "", "be": "is"} | {name: text for name, text in match.groupdict().items() if text}
            words |= {"be": words["be"].lower(), "topic": _uncapitalise(words["topic"])}
            sentence = _pick(rule.templates, choice).format(answer=core, **words)
            for extended in (_place(sentence, choice), sentence):
                if len(extended.split()) <= _SHORT_LIMIT:
                    return _finish(extended)
        return _finish(_pick(_PLAIN, choice).format(answer=core))


def extend_records(records: Iterable[Record], extender: TemplateExtender) -> list[Record]:
    """Fills the extended answers that are missing; those that exist stay as they are.

    Args:
        records: The records.
        extender: Anything with `extend(question, answer) -> str`.

    Returns:
        New records with an extended answer in every turn.
    """
    return [
        replace(
            record,
            turns=tuple(
                replace(turn, extended_answer=extender.extend(turn.question, turn.answer))
                if turn.extended_answer is None
                else turn
                for turn in record.turns
            ),
        )
        for record in records
    ]


def _stable_number(text: str) -> int:
    """A hash that is the same in every process, unlike Python's own."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "big")


def _pick(templates: tuple[str, ...], choice: int) -> str:
    return templates[choice % len(templates)]


def _place(sentence: str, choice: int) -> str:
    """Adds where this was seen: in front, or behind answers that open with yes or no."""
    if "image" in sentence:
        return sentence
    look = _LOOK[choice // 7 % len(_LOOK)]
    return f"{sentence} {look}" if sentence.lower().startswith(("yes,", "no,")) else f"{look}, {sentence}"


def _uncapitalise(text: str) -> str:
    """Lowers the first letter of an ordinary word; `CT` and `MRI` stay."""
    return text[0].lower() + text[1:] if len(text) > 1 and text[1].islower() else text


def _finish(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:] + "."
