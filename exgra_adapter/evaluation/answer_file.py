"""The answers of a file by question id, read from the file when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from exgra_adapter.data.records import shows_nothing
from exgra_adapter.evaluation.file_state import FileState
from exgra_adapter.evaluation.files import Prediction, parse_answer
from exgra_adapter.key_table import KeyTable

_CALLER = "read_candidate"


class AnswerFile(Mapping[str, str | None]):
    """Maps question ids to the answers of a file, None where nothing of them is visible; 16 bytes of memory each.

    Args:
        path: An answer file, see `exgra_adapter.evaluation.files`.
        asked: The ids of the questions.

    Raises:
        ValueError: The file is missing, broken or empty, answers a question twice, or one that was not asked. While it
            is used: it has changed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "answers.jsonl"
        >>> _ = path.write_text('{"question_id": 7, "text": "The liver."}')
        >>> AnswerFile(path, KeyTable([("7", 0), ("8", 1)])).get("7")
        'The liver.'
    """

    def __init__(self, path: Path, asked: KeyTable) -> None:
        self._path = Path(path)
        self._state = FileState(self._path)
        strangers, first = 0, ""

        def places() -> Iterator[tuple[str, int]]:
            nonlocal strangers, first
            for offset, _, item in _read_lines(self._path):
                if item.turn or asked.get(item.id) is None:
                    first = first or f"question_id {item.id!r}, turn {item.turn}"
                    strangers += 1
                else:
                    yield item.id, offset

        self._places = KeyTable(places())
        if strangers or not self._places:
            got = f"{strangers} others, the first with {first}" if strangers else "no answer at all"
            raise ValueError(
                f"{_CALLER}: {path} must answer the questions of the evaluation; got {got}. "
                "Check that the answers were made from these questions."
            )
        if self._places.repeated:
            self._refuse_repeated()

    def __getitem__(self, question: str) -> str | None:
        offset = self._places.get(question)
        if offset is None:
            raise KeyError(question)
        self._state.require_same(_CALLER)
        with self._path.open("rb") as file:
            file.seek(offset)
            line = file.readline()
        return _text(parse_answer(_decode(line, offset, self._path), f"{_CALLER}: {self._path}"))

    def __iter__(self) -> Iterator[str]:
        self._state.require_same(_CALLER)
        for _, _, item in _read_lines(self._path):
            yield item.id

    def __len__(self) -> int:
        return len(self._places)

    def _refuse_repeated(self) -> None:
        numbers: dict[str, int] = {}
        for _, number, item in _read_lines(self._path):
            if item.id in numbers:
                raise ValueError(
                    f"{_CALLER}: {self._path}, line {number} must answer a new question; got question_id {item.id!r}, "
                    f"answered in line {numbers[item.id]} already. Remove one of the two lines."
                )
            numbers[item.id] = number


def _read_lines(path: Path) -> Iterator[tuple[int, int, Prediction]]:
    """The offset, the number and the content of each line that is not blank."""
    if not path.is_file():
        raise ValueError(f"{_CALLER}: path must be an existing answer file; got {path}. Check the name.")
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            text = _decode(line, offset, path)
            if text.strip():
                yield offset, number, parse_answer(text, f"{_CALLER}: {path}, line {number}")
            offset += len(line)


def _decode(line: bytes, offset: int, path: Path) -> str:
    try:
        return line.decode("utf-8" if offset else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{_CALLER}: {path} must be UTF-8 text; got byte {offset + error.start} that is not. Save it as UTF-8."
        ) from error


def _text(item: Prediction) -> str | None:
    return None if shows_nothing(item.prediction or "") else item.prediction
