"""What files say, read a second time by rules that are written down from the documented formats alone.

Every function takes the bytes of a file and returns what they mean, or raises `Refused`.
"""

from __future__ import annotations

import gzip
import json
import lzma
import math
import re
import zlib
from typing import Any

INTEGER = re.compile(rb"[+-]?[0-9]{1,4300}")
REAL = re.compile(rb"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
LARGEST_COST = 1e100
MOST_NODES = 2**31 - 1
TAG = "<image>"


class Refused(Exception):  # noqa: N818
    """The bytes break the format."""


def require(condition: bool) -> None:
    if not condition:
        raise Refused


def unpacked(suffix: str, content: bytes) -> bytes:
    try:
        if suffix == ".gz":
            return gzip.decompress(content)
        return lzma.decompress(content) if suffix == ".xz" else content
    except (OSError, EOFError, lzma.LZMAError, zlib.error):
        raise Refused from None


def integer(word: bytes) -> int:
    require(INTEGER.fullmatch(word) is not None)
    return int(word)


def cost(word: bytes) -> float:
    require(REAL.fullmatch(word) is not None)
    require(abs(float(word)) <= LARGEST_COST)
    return float(word)


def dd(content: bytes, multigraph: bool, most_numbers: int) -> dict[tuple[int, int] | None, tuple]:
    """Returns {graphs: (n1, n2, {(i, k): cost}, {(i, k, j, l): cost with i < j})} of all blocks."""
    blocks: dict[tuple[int, int] | None, list[list[bytes]]] = {} if multigraph else {None: []}
    current = None if multigraph else blocks[None]
    for line in re.split(rb"\r\n|\r|\n", content):
        fields = line.split()
        if not fields or fields[0] in (b"c", b"i0", b"i1", b"n0", b"n1"):
            continue
        if fields[0] == b"gm":
            require(multigraph and len(fields) == 3)
            first, second = integer(fields[1]), integer(fields[2])
            require(first >= 0 and second >= 0 and first != second)
            require((first, second) not in blocks and (second, first) not in blocks)
            current = blocks[first, second] = []
            continue
        require(current is not None)
        current.append(fields)
    require(bool(blocks))
    answer = {graphs: _dd_block(lines) for graphs, lines in blocks.items()}
    nodes: dict[int, int] = {}
    numbers = 0
    for graphs, (n1, n2, _, quadratic) in answer.items():
        for graph, count in zip(graphs or (), (n1, n2), strict=False):
            require(nodes.setdefault(graph, count) == count)
        numbers += n1 * n2 + len({key[::2] for key in quadratic}) * len({key[1::2] for key in quadratic})
    require(numbers <= most_numbers)
    return answer


def _dd_block(lines: list[list[bytes]]) -> tuple:
    require(bool(lines) and lines[0][0] == b"p" and len(lines[0]) == 5)
    n1, n2, assignments, pairs = map(integer, lines[0][1:])
    require(min(n1, n2, assignments, pairs) >= 0 and max(n1, n2) <= MOST_NODES)
    places: list[tuple[int, int]] = []
    unary: dict[tuple[int, int], float] = {}
    quadratic: dict[tuple[int, int, int, int], float] = {}
    pair_lines = 0
    for fields in lines[1:]:
        if fields[0] == b"a":
            require(len(fields) == 5)
            number, row, column = map(integer, fields[1:4])
            require(number == len(places) and 0 <= row < n1 and 0 <= column < n2 and (row, column) not in unary)
            unary[row, column] = cost(fields[4])
            places.append((row, column))
        else:
            require(fields[0] == b"e" and len(fields) == 4)
            ids = integer(fields[1]), integer(fields[2])
            require(min(ids) >= 0 and max(ids) < len(places) and ids[0] != ids[1])
            value = cost(fields[3])
            (i, k), (j, m) = sorted(places[number] for number in ids)
            pair_lines += 1
            if i != j and k != m:
                quadratic[i, k, j, m] = quadratic.get((i, k, j, m), 0.0) + value
    require(assignments in (0, len(places)) and pairs in (0, pair_lines))
    require(all(abs(value) <= LARGEST_COST for value in quadratic.values()))
    return n1, n2, unary, quadratic


def dat(content: bytes) -> list[list[float]]:
    """Returns two or three square matrices, each as the list of its numbers."""
    words = content.split()
    require(bool(words))
    size = integer(words[0])
    require(0 <= size <= MOST_NODES)
    numbers = [cost(word) for word in words[1:]]
    require(len(numbers) in (2 * size**2, 3 * size**2))
    count = len(numbers) // size**2 if size else 2
    return [numbers[at * size**2 : (at + 1) * size**2] for at in range(count)]


def sln(content: bytes) -> tuple[float, list[int]]:
    """Returns the objective, and the permutation from 0."""
    words = content.replace(b",", b" ").split()
    require(len(words) >= 2)
    size, objective = integer(words[0]), cost(words[1])
    require(len(words) == 2 + size)
    locations = [integer(word) for word in words[2:]]
    require(sorted(locations) == list(range(1, size + 1)))
    return objective, [location - 1 for location in locations]


def decoded(text: bytes) -> Any:
    try:
        return json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Refused from None


def require_standard(value: Any) -> None:
    """Refuses what JSON does not have: numbers that are not finite, halves of surrogate pairs."""
    waiting = [value]  # brackets may go deeper than calls
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict | list):
            waiting += [*part, *part.values()] if isinstance(part, dict) else part
        require(not isinstance(part, float) or math.isfinite(part))
        try:
            require(not isinstance(part, str) or bool(part.encode("utf-8")) or not part)
        except UnicodeEncodeError:
            raise Refused from None


def json_records(content: bytes) -> list[tuple]:
    """Returns (id, image, turns, answer type) of the samples of a JSON list."""
    samples = decoded(content.removeprefix(b"\xef\xbb\xbf"))
    require(isinstance(samples, list))
    return _records(samples)


def json_line_records(content: bytes) -> list[tuple]:
    """Returns the same of JSON lines."""
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return _records([decoded(line.strip()) for line in lines if line.strip()])


def _records(samples: list[Any]) -> list[tuple]:
    records = [_record(sample) for sample in samples]
    require(len({record[0] for record in records}) == len(records))
    return records


def _record(sample: Any) -> tuple:
    require(isinstance(sample, dict))
    turns = _turns(_first(sample, "conversations", "conversatons"))
    named = [sample[key] for key in ("conversations_long", "conversatons_long") if sample.get(key) is not None]
    longer = _turns(named[0]) if named else [(None, None)] * len(turns)
    require(len(longer) == len(turns))
    answer_type = sample.get("answer_type")
    require(answer_type in (None, "OPEN", "CLOSED"))
    joined = [(question, answer, extended) for (question, answer), (_, extended) in zip(turns, longer, strict=True)]
    return _text(_first(sample, "id")), _text(_first(sample, "image")), joined, answer_type


def _first(sample: dict, *keys: str) -> Any:
    present = [key for key in keys if key in sample]
    require(bool(present))
    return sample[present[0]]


def _text(value: Any) -> str:
    require(type(value) in (str, int, float))
    require_standard(value)
    require(bool(str(value).strip()))
    return str(value).strip()


def _turns(messages: Any) -> list[tuple[str, str]]:
    require(isinstance(messages, list) and len(messages) > 0 and len(messages) % 2 == 0)
    texts = []
    for number, message in enumerate(messages):
        require(isinstance(message, dict) and message.get("from") == ("human", "gpt")[number % 2])
        parts = _text(_first(message, "value")).split(TAG)
        require(len(parts) == 1 or (number == 0 and len(parts) == 2))
        texts.append(" ".join(part.strip() for part in parts).strip())
        require(bool(texts[-1]))
    return list(zip(texts[::2], texts[1::2], strict=True))


def answers(content: bytes) -> list[tuple]:
    """Returns (id, turn, prediction) of the lines of an answer file."""
    text = _marked_text(content).replace("\r\n", "\n").replace("\r", "\n")
    found = {}
    for line in text.split("\n"):
        if not line.strip():
            continue
        content_of_line = decoded(line.encode())
        require_standard(content_of_line)
        require(isinstance(content_of_line, dict) and {"question_id", "text"} <= set(content_of_line))
        turn, answer = content_of_line.get("turn", 0), content_of_line["text"]
        require(type(turn) is int and turn >= 0)
        require(answer is None or type(answer) in (str, int, float))
        require(type(content_of_line["question_id"]) in (str, int, float))
        key = str(content_of_line["question_id"]), turn
        require(key not in found)
        found[key] = None if answer is None else str(answer)
    return [(*key, answer) for key, answer in found.items()]


def candidates(content: bytes) -> list[str]:
    """Returns the answers of a candidates file."""
    value = decoded(_marked_text(content).encode())
    require_standard(value)
    require(isinstance(value, dict))
    answers = value.get("0")
    require(isinstance(answers, list) and bool(answers))
    require(all(type(answer) in (str, int, float) for answer in answers))
    return [str(answer) for answer in answers]


def _marked_text(content: bytes) -> str:
    """Returns a text with or without a byte order mark."""
    if content in (b"\xef", b"\xef\xbb"):  # Python takes the beginning of a byte order mark for an empty text
        return ""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Refused from None
