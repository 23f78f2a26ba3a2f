"""Multiple-choice questions about images: OmniMedVQA's files, how a model is asked, and how its answer names an option.

A file is a list of questions with `question_id`, `question`, `image_path`, `gt_answer`, the options `option_A`,
`option_B` and so on, and what results are grouped by: `dataset`, `modality_type` and `question_type`.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exgra_adapter.data.files import file_samples, record_files
from exgra_adapter.data.records import kind_of, text_of
from exgra_adapter.evaluation.metrics import words

LETTERS = string.ascii_uppercase
"""The letters that options are named by, in their order."""

_SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
_READER = "read_choice_items"
# A letter alone, or set off from what follows: "A large mass" does not choose option A.
_FIRST = re.compile(r"\s*(?:[(\[]([A-Za-z])[)\]]|([A-Za-z])(?:[.:)\]]|\s*$|\s*\n))[.:,]?\s*(.*)", re.DOTALL)
_SET_OFF = re.compile(r"\b([A-Z])(?=[.:)\]])")
_NAMED = re.compile(r"\b(?:[Aa]nswer|[Oo]ption|[Cc]hoice)(?:\s+is)?\s*(?::\s*)?[(\[]?([A-Z])(?=[)\].,:;]|\s*$)")


@dataclass(frozen=True)
class ChoiceItem:
    """One multiple-choice question.

    Attributes:
        id: Identifier as text, unique within its dataset.
        dataset: The dataset that the question comes from.
        modality: How the image was made.
        question_type: What is asked for.
        question: The question, without the options.
        image: Name of the image, relative to the image folder.
        options: At least two.
        answer: Place of the right one among them.
    """

    id: str
    dataset: str
    modality: str
    question_type: str
    question: str
    image: str
    options: tuple[str, ...]
    answer: int


def read_choice_items(path: Path) -> list[ChoiceItem]:
    """Reads and checks multiple-choice questions.

    Args:
        path: A JSON list or JSON lines, also with `.gz`; a folder of such files; or a pattern.

    Returns:
        The questions, file after file in the order of the names.

    Raises:
        ValueError: There is no file, a file cannot be read, or a question breaks the format; the message names the
            file, the question's number (from 0) and the key.

    Example:
        >>> import json, tempfile
        >>> path = Path(tempfile.mkdtemp()) / "CT.json"
        >>> question = {"question_id": 1, "question": "Which organ?", "image_path": "a.png", "dataset": "CT"}
        >>> question |= {"gt_answer": "Liver", "option_A": "Lung", "option_B": "Liver."}
        >>> _ = path.write_text(json.dumps([question]))
        >>> read_choice_items(path)[0].answer
        1
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.name.endswith(_SUFFIXES))
    else:
        files = record_files(path, _READER)
    items: list[ChoiceItem] = []
    first_place: dict[tuple[str, str], str] = {}
    for file in files:
        for sample in file_samples(file, _READER):
            if sample.error is not None:
                raise ValueError(f"{_READER}: {sample.where} {sample.error}.")
            item = _parse(sample.content, f"{_READER}: {sample.where}")
            earlier = first_place.setdefault((item.dataset, item.id), sample.where)
            if earlier != sample.where:
                raise ValueError(
                    f"{_READER}: question ids must be unique in their dataset; got {item.id!r} at {earlier} and at "
                    f"{sample.where}. Remove one of them."
                )
            items.append(item)
    if not items:
        raise ValueError(
            f"{_READER}: path must hold at least one question; got none in {path}. Name a JSON file of questions, or a "
            "folder of them."
        )
    return items


def choice_question(item: ChoiceItem) -> str:
    r"""Returns what a model is asked: the question, the options behind their letters, and how to answer.

    Example:
        >>> item = ChoiceItem("1", "CT", "CT", "organ", "Which organ is it?", "a.png", ("lung", "liver"), 1)
        >>> print(choice_question(item))
        Which organ is it?
        A. lung
        B. liver
        Answer with the letter of one option.
    """
    options = [f"{letter}. {option}" for letter, option in zip(LETTERS, item.options, strict=False)]
    return "\n".join([item.question, *options, "Answer with the letter of one option."])


def map_choice(answer: str, options: Sequence[str]) -> int | None:
    """Finds the option that an answer names.

    The first rule that applies decides:

    1. The answer is an option's text, but for case, punctuation and white space.
    2. The answer begins with a letter that stands alone or is set off: "B", "(b)", "B. the lung". If the text or the
       letter of another option follows, and not the text of this one, the answer contradicts itself and names none.
    3. The answer says "answer", "option" or "choice" and then a capital letter, the same one each time.
    4. Exactly one option occurs in the answer as a run of whole words, not counting those inside a longer one.

    The bold face of Markdown is ignored.

    Args:
        answer: What the model said.
        options: Texts of the options, in the order of their letters.

    Returns:
        The place of the option, or None where the answer names none or several.

    Example:
        >>> options = ["Lung", "Left lung", "Liver"]
        >>> [map_choice(answer, options) for answer in ("C", "(b) left lung", "It is the left lung.", "A: liver", "?")]
        [2, 1, 1, None, None]
    """
    answer = answer.replace("**", "")
    texts = [words(option) for option in options]
    said = words(answer)
    exact = [at for at, option in enumerate(options) if _plain(option) == _plain(answer)]
    exact = exact or [at for at, text in enumerate(texts) if text and text == said]
    if exact:
        return exact[0] if _same(options, exact) else None
    first = _FIRST.fullmatch(answer)
    if first is not None:
        return _check_letter(first[1] or first[2], first[3], texts)
    letters = set(_NAMED.findall(answer))
    if letters:
        chosen = LETTERS.index(min(letters))
        return chosen if len(letters) == 1 and chosen < len(options) else None
    named = _named_by_text(said, texts)
    return named[0] if named and _same(options, named) else None


def _check_letter(letter: str, rest: str, texts: list[list[str]]) -> int | None:
    """The option of a letter, unless what follows contradicts it."""
    chosen = LETTERS.index(letter.upper())
    if chosen >= len(texts):
        return None
    named = _named_by_text(words(rest), texts)
    others = {LETTERS.index(each) for each in _SET_OFF.findall(rest)} & set(range(len(texts))) - {chosen}
    return chosen if chosen in named or not (named or others) else None


def _named_by_text(said: list[str], texts: list[list[str]]) -> list[int]:
    """Options that occur in an answer elsewhere than inside a longer option that occurs there."""
    runs = [
        (at, at + len(text), place)
        for place, text in enumerate(texts)
        if text
        for at in range(len(said) - len(text) + 1)
        if said[at : at + len(text)] == text
    ]
    outer = {
        place
        for start, end, place in runs
        if not any(s <= start and end <= e and e - s > end - start for s, e, _ in runs)
    }
    return sorted(outer)


def _same(options: Sequence[str], places: Sequence[int]) -> bool:
    """Whether options differ in nothing but case and white space."""
    return len({_plain(options[at]) for at in places}) == 1


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold().rstrip(".")


def _parse(sample: Any, where: str) -> ChoiceItem:
    if not isinstance(sample, Mapping):
        raise ValueError(f"{where} must be a JSON object; got {kind_of(sample)}. Give it keys question and option_A.")
    identifier = _text(sample, "question_id", where)
    where = f"{where} (question_id {identifier!r})"
    keys = [f"option_{letter}" for letter in LETTERS]
    # Files with options for some questions only hold null or an empty text for the others.
    options = [text_of(sample[key], f"{where}: key {key!r}") for key in keys if sample.get(key) not in (None, "")]
    if len(options) < 2:
        raise ValueError(
            f"{where} must have at least two options; got {len(options)}. Give it option_A, option_B and so on."
        )
    right = _text(sample, "gt_answer", where)
    found = [at for at, option in enumerate(options) if _plain(option) == _plain(right)]
    found = found or [at for at, option in enumerate(options) if words(option) == words(right)]
    if not found:
        raise ValueError(
            f"{where}: key 'gt_answer' must be one of the options; got {right!r} for {options}. Correct or drop the "
            "question."
        )
    return ChoiceItem(
        id=identifier,
        dataset=_group(sample, "dataset", where),
        modality=_group(sample, "modality_type", where),
        question_type=_group(sample, "question_type", where),
        question=_text(sample, "question", where),
        image=_text(sample, "image_path", where),
        options=tuple(options),
        answer=found[0],
    )


def _text(sample: Mapping[str, Any], key: str, where: str) -> str:
    if key not in sample:
        raise ValueError(f"{where} must have key {key!r} with a text or a number; got none. Fill it in.")
    return text_of(sample[key], f"{where}: key {key!r}")


def _group(sample: Mapping[str, Any], key: str, where: str) -> str:
    value = sample.get(key)
    return "unknown" if value is None or not str(value).strip() else text_of(value, f"{where}: key {key!r}")
