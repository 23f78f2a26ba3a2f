"""Readers under fuzzing: what a strict second reading accepts is read the same; all else is refused by name."""

from __future__ import annotations

import gzip
import lzma
import os
import random
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import graphmatch as gm
from exgra_adapter.data.records import Record, Turn, read_records, write_records
from exgra_adapter.evaluation.files import Prediction, read_answers, write_answers
from graphmatch import _check

from . import strict_readers
from .mutations import KINDS, LARGEST_PLACE, Change, changed, random_changes

SECONDS_VARIABLE = "GRAPHMATCH_FUZZ_SECONDS"
INPUTS = 250
LONGEST = 5.0  # seconds; a reader that takes longer hangs
MACHINE_BYTES = 2**25  # files that need more are refused, so that the fuzzing itself stays small
PACK = {".gz": lambda text: gzip.compress(text, 1), ".xz": lambda text: lzma.compress(text, preset=0)}
NUMBERS = st.integers(0, LARGEST_PLACE)
CHANGES = st.lists(st.tuples(st.sampled_from(KINDS), NUMBERS, NUMBERS), max_size=5)


@dataclass(frozen=True)
class Format:
    """One reader.

    Attributes:
        name: File name.
        write: Writes a valid file, of a few kinds.
        read: Returns what the reader says of a file, in plain values.
        strict: Returns the same of the bytes, or raises `Refused`.
    """

    name: str
    write: Callable[[Path, int], None]
    read: Callable[[Path], Any]
    strict: Callable[[bytes], Any]


def lawler(seed: int, n1: int = 3, n2: int = 3) -> gm.LawlerProblem:
    generator = torch.Generator().manual_seed(seed)
    unary = torch.randn(1, n1, n2, generator=generator, dtype=torch.float64)
    unary[torch.rand(unary.shape, generator=generator) < 0.2] = torch.inf
    edges = [torch.combinations(torch.arange(n)) for n in (n1, n2)]
    quadratic = torch.randn(1, len(edges[0]), len(edges[1]), generator=generator, dtype=torch.float64)
    return gm.LawlerProblem(unary, quadratic.round(decimals=2), *edges, unmatched_cost=0.0)


def write_pairs(path: Path, seed: int) -> None:
    sizes = (2, 3, 1)
    pairs = [(0, 1), (2, 1), (0, 2)][: 1 + seed % 3]
    gm.io.write_multigraph_dd(path, {(i, j): lawler(seed, sizes[i], sizes[j]) for i, j in pairs})


def plain(problem: gm.LawlerProblem) -> tuple:
    """A Lawler problem as the strict reading describes it."""
    unary, quadratic = problem.unary_costs[0], problem.quadratic_costs[0]
    edges1, edges2 = problem.edges1[0].tolist(), problem.edges2[0].tolist()
    allowed = {(i, k): float(unary[i, k]) for i, k in unary.isfinite().nonzero().tolist()}
    paid = {
        (*pair1, *pair2): float(quadratic[e, f])
        for e, pair1 in enumerate(edges1)
        for f, pair2 in enumerate(edges2)
        if quadratic[e, f] != 0
    }
    return *unary.shape, allowed, {(i, k, j, m): value for (i, j, k, m), value in paid.items()}


def without_zeros(blocks: dict) -> dict:
    return {
        graphs: (n1, n2, unary, {key: value for key, value in quadratic.items() if value})
        for graphs, (n1, n2, unary, quadratic) in blocks.items()
    }


def write_dat(path: Path, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    numbers = [torch.randn(1, 3, 3, generator=generator).mul(9).round() for _ in range(2 + seed % 2)]
    gm.io.write_qaplib(path, gm.KoopmansBeckmannProblem(*numbers))


def read_dat(path: Path) -> list[list[float]]:
    problem = gm.io.read_qaplib(path)
    matrices = (problem.flow, problem.distance, problem.linear)
    return [matrix.flatten().tolist() for matrix in matrices if matrix is not None]


def write_sln(path: Path, seed: int) -> None:
    order = torch.randperm(3 + seed % 3, generator=torch.Generator().manual_seed(seed))
    gm.io.write_qaplib_solution(path, gm.io.QaplibSolution(24.5 + seed, order))


def read_sln(path: Path) -> tuple[float, list[int]]:
    solution = gm.io.read_qaplib_solution(path)
    return solution.objective, solution.assignment.tolist()


def records(seed: int) -> list[Record]:
    longer = ("It is the left lung.", "Yes: an opacity.") if seed % 2 else (None, None)
    turns = (Turn("Which lung?", "left", longer[0]), Turn("Läsion? \u2028", "yes", longer[1]))
    return [Record("7", "a.png", turns, "OPEN"), Record("x", "b/ü.png", turns[:1])]


def write_lines(path: Path, seed: int) -> None:
    listed = path.with_name("list.json")
    write_records(listed, records(seed))
    samples = strict_readers.decoded(listed.read_bytes())
    path.write_text("".join(strict_readers.json.dumps(sample) + "\n" for sample in samples))


def read_samples(path: Path) -> list[tuple]:
    return [(r.id, r.image, [astuple(turn) for turn in r.turns], r.answer_type) for r in read_records(path)]


def write_predictions(path: Path, seed: int) -> None:
    failed = Prediction("q", 0, "Where?", "left", None, "time-out") if seed % 2 else Prediction("q", 0, "?", "a", "b")
    write_answers(path, [Prediction("7", 0, "Lesion?", "yes", "no"), Prediction("7", 1, "ü", "2", "2"), failed])


def read_predictions(path: Path) -> list[tuple]:
    return [(item.id, item.turn, item.prediction) for item in read_answers(path)]


def formats() -> list[Format]:
    most = MACHINE_BYTES // 8
    found = []
    for suffix in ("", ".gz", ".xz"):

        def single(content: bytes, suffix: str = suffix) -> dict:
            return without_zeros(strict_readers.dd(strict_readers.unpacked(suffix, content), False, most))

        def several(content: bytes, suffix: str = suffix) -> dict:
            return without_zeros(strict_readers.dd(strict_readers.unpacked(suffix, content), True, most))

        found += [
            Format(
                f"one.dd{suffix}",
                lambda path, seed: gm.io.write_dd(path, lawler(seed)),
                lambda path: {None: plain(gm.io.read_dd(path))},
                single,
            ),
            Format(
                f"many.dd{suffix}",
                write_pairs,
                lambda path: {pair: plain(problem) for pair, problem in gm.io.read_multigraph_dd(path).items()},
                several,
            ),
        ]
    return [
        *found,
        Format("case.dat", write_dat, read_dat, strict_readers.dat),
        Format("case.sln", write_sln, read_sln, strict_readers.sln),
        Format("case.json", lambda path, seed: write_records(path, records(seed)), read_samples,
               strict_readers.json_records),
        Format("case.jsonl", write_lines, read_samples, strict_readers.json_line_records),
        Format("answers.jsonl", write_predictions, read_predictions, strict_readers.answers),
    ]  # fmt: skip


FORMATS = formats()


def check(kind: Format, path: Path, content: bytes) -> bool:
    """Checks one file; returns whether it is valid."""
    path.write_bytes(content)
    started = time.monotonic()
    complaint = None
    try:
        answer = kind.read(path)
    except (ValueError, OSError) as error:
        complaint = str(error)
    assert time.monotonic() - started < LONGEST
    try:
        expected = kind.strict(content)
    except strict_readers.Refused:
        assert complaint is not None, "a broken file was read"
        assert path.name in complaint
        return False
    assert complaint is None, complaint
    assert answer == expected
    return True


def sources(kind: Format, folder: Path) -> list[bytes]:
    """Valid files, not compressed."""
    found = []
    for seed in range(6):
        path = folder / kind.name
        kind.write(path, seed)
        found.append(strict_readers.unpacked(path.suffix, path.read_bytes()))
        assert check(kind, path, path.read_bytes())
    return found


def broken(kind: Format, source: bytes, changes: list[Change], damage: list[Change]) -> bytes:
    """Changes of the text and, in compressed files, of the compressed bytes."""
    suffix = Path(kind.name).suffix
    content = changed(source, changes)
    return changed(PACK[suffix](content), damage) if suffix in PACK else content


@pytest.fixture(autouse=True)
def small_machine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_check.os, "sysconf", lambda name: MACHINE_BYTES if name == "SC_PAGE_SIZE" else 1)


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
def test_a_changed_file_is_read_right_or_refused_by_name(tmp_path: Path, kind: Format):
    valid = sources(kind, tmp_path)
    path = tmp_path / kind.name

    @settings(max_examples=INPUTS, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(valid), CHANGES, st.lists(st.tuples(st.sampled_from(("cut", "byte")), NUMBERS, NUMBERS),
           max_size=1))  # fmt: skip
    def every_change(source: bytes, changes: list[Change], damage: list[Change]) -> None:
        check(kind, path, broken(kind, source, changes, damage))

    every_change()


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
def test_a_file_cut_anywhere_is_read_right_or_refused(tmp_path: Path, kind: Format):
    kind.write(tmp_path / kind.name, 1)
    content = (tmp_path / kind.name).read_bytes()
    valid = sum(check(kind, tmp_path / kind.name, content[:length]) for length in range(0, len(content), 3))
    assert valid < len(content) / 12


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
def test_the_fuzzing_reaches_both_answers(tmp_path: Path, kind: Format):
    generator = random.Random(0)
    path = tmp_path / kind.name
    valid = sources(kind, tmp_path)
    answers = {check(kind, path, broken(kind, generator.choice(valid), random_changes(generator), []))
               for _ in range(100)}  # fmt: skip
    assert answers == {True, False}


HAS = {kind.name: kind for kind in FORMATS}
DEEP = 2000
LINE = '{"question_id": "1", "text": %s}'
SAMPLE = '[{"id": %s, "image": "a", "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": 1}]}]'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("many.dd", "gm 1_0 2\np 0 0 0 0\n"),
        ("one.dd", "p 2 2 0 0\na 0 0 0 0\na 1 1 1 0\ne 0 1 1e100\ne 1 0 1e100\n"),
        ("case.sln", "3 24.5\n2 3 1_0\n"),
        ("case.json", '{"a":' * DEEP + "1" + "}" * DEEP),
        ("case.json", "1" * 5000),
        ("case.json", SAMPLE % "NaN"),
        ("case.json", SAMPLE % "1e999"),
        ("case.jsonl", "[" * DEEP + "]" * DEEP),
        ("answers.jsonl", LINE % ("1" * 5000)),
        ("answers.jsonl", LINE % ("[" * DEEP + "]" * DEEP)),
    ],
    ids=lambda value: value[:12],
)
def test_what_fuzzing_found_is_refused(tmp_path: Path, name: str, text: str):
    assert not check(HAS[name], tmp_path / name, text.encode())


@pytest.mark.slow
@pytest.mark.timeout(0)  # the time is the budget
def test_millions_of_changed_files(tmp_path: Path, record_property: Callable[[str, object], None]):
    seconds = float(os.environ.get(SECONDS_VARIABLE, "60"))
    seed = int(os.environ.get("GRAPHMATCH_FUZZ_SEED", "0"))
    generator = random.Random(seed)
    valid = {kind.name: sources(kind, tmp_path) for kind in FORMATS}
    findings: dict[tuple[str, str], bytes] = {}
    inputs = accepted = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        kind = generator.choice(FORMATS)
        damage = [("byte", generator.randint(0, LARGEST_PLACE), generator.randint(0, 255))]
        changes = random_changes(generator)
        source = generator.choice(valid[kind.name])
        content = broken(kind, source, changes, damage if generator.random() < 0.2 else [])
        inputs += 1
        try:
            accepted += check(kind, tmp_path / kind.name, content)
        except Exception as error:  # noqa: BLE001  # all of them are findings
            key = (kind.name, f"{type(error).__name__}: {str(error)[:60]}")
            if key not in findings or len(content) < len(findings[key]):
                findings[key] = content
    record_property("inputs", inputs)
    record_property("accepted", accepted)
    print(f"{inputs} inputs in {seconds:g} s, {accepted} of them valid, {len(findings)} findings")  # noqa: T201
    assert not findings, "\n".join(f"{key}: {content[:300]!r}" for key, content in findings.items())
