"""Readers under fuzzing: what a strict second reading accepts is read the same; all else is refused by name."""

from __future__ import annotations

import io
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from . import fuzzing, strict_readers
from .fuzzing import all_formats, broken, check, fuzz, small_machine, sources
from .mutations import KINDS, LARGEST_PLACE, Change, random_changes
from .readers import Format

SECONDS_VARIABLE = "GRAPHMATCH_FUZZ_SECONDS"
INPUTS = 250
NUMBERS = st.integers(0, LARGEST_PLACE)
CHANGES = st.lists(st.tuples(st.sampled_from(KINDS), NUMBERS, NUMBERS), max_size=5)
DAMAGES = st.lists(st.tuples(st.sampled_from(("cut", "byte")), NUMBERS, NUMBERS), max_size=1)

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]


@pytest.fixture(autouse=True)
def readers_see_a_small_machine():
    with small_machine():
        yield


def format_of(name: str) -> Format:
    return next(kind for kind in all_formats() if kind.name == name)


NAMES = [kind.name for kind in all_formats()]
EVERY = pytest.mark.parametrize("name", NAMES)


@EVERY
def test_a_changed_file_is_read_right_or_refused_by_name(tmp_path: Path, name: str):
    kind = format_of(name)
    valid = sources(kind, tmp_path)
    path = tmp_path / kind.name

    @settings(max_examples=INPUTS, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(valid), CHANGES, DAMAGES)
    def every_change(source: bytes, changes: list[Change], damage: list[Change]) -> None:
        check(kind, path, broken(kind, source, changes, damage))

    every_change()


@EVERY
def test_a_file_cut_anywhere_is_read_right_or_refused(tmp_path: Path, name: str):
    kind = format_of(name)
    kind.write(tmp_path / kind.name, 1)
    content = (tmp_path / kind.name).read_bytes()
    step = max(3, len(content) // 200)
    valid = sum(check(kind, tmp_path / kind.name, content[:length]) for length in range(0, len(content), step))
    assert kind.strict is None or valid < len(content) / 12


@EVERY
def test_the_fuzzing_reaches_both_answers(tmp_path: Path, name: str):
    generator = random.Random(0)
    kind = format_of(name)
    path = tmp_path / kind.name
    valid = sources(kind, tmp_path)
    answers = {check(kind, path, broken(kind, generator.choice(valid), random_changes(generator), []))
               for _ in range(100)}  # fmt: skip
    assert answers == {True, False}


def loop_for_ever(path: Path) -> None:
    while True:
        pass


def refuse(content: bytes) -> None:
    raise strict_readers.Refused


def complain(path: Path) -> None:
    raise ValueError("something is wrong")


@pytest.mark.parametrize(
    ("read", "strict", "finding"),
    [
        (loop_for_ever, None, "Hanging: more than"),
        (lambda path: 1, refuse, "AssertionError: a broken file was read"),
        (lambda path: 1, lambda content: 2, "AssertionError: a file was read as another one"),
        (complain, None, "AssertionError: a refusal without a name: something is wrong"),
        (lambda path: {}[path], None, "KeyError: "),
        (lambda path: [0] * 2**60, None, "MemoryError: "),
    ],
)
def test_the_fuzzing_sees_what_goes_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable, strict: Callable | None, finding: str
):
    monkeypatch.setattr(fuzzing, "LONGEST", 0.2)
    monkeypatch.setattr(fuzzing, "sources", lambda kind, folder: [b"1 2 3\n"])
    tally = fuzz(Format("bad.txt", lambda path, seed: None, read, strict), tmp_path, 0.01, 0)
    assert [kind.startswith(finding) for kind in tally.findings] == [True]
    assert (tally.accepted, tally.refused) == (0, 0)


def test_a_good_file_that_is_refused_is_seen(tmp_path: Path):
    def read(path: Path) -> None:
        raise ValueError(f"{path} is refused")

    with pytest.raises(AssertionError, match="a good file was refused"):
        check(Format("good.txt", lambda path, seed: None, read, lambda content: 1), tmp_path / "good.txt", b"1")


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
    assert not check(format_of(name), tmp_path / name, text.encode())


def test_a_tag_of_the_wrong_kind_makes_a_picture_unreadable(tmp_path: Path):
    content = io.BytesIO()
    Image.new("I;16", (9, 7)).save(content, "TIFF")
    broken_tag = content.getvalue().replace(struct.pack("<HHII", 273, 4, 1, 122), struct.pack("<HHIf", 273, 11, 1, 122))
    assert broken_tag != content.getvalue()
    assert not check(format_of("picture.any"), tmp_path / "picture.any", broken_tag)


def test_a_name_that_leaves_its_table_is_refused_with_the_name_of_the_table(tmp_path: Path):
    path = tmp_path / "table.parquet"
    talk = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "a"}]
    image = {"bytes": b"P5 2 1 255 ab", "path": "..\\1.pgm"}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"id": "1", "image": image, "conversations": talk}]), path)
    assert not check(format_of(path.name), path, path.read_bytes())


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("questions.jsonl", '{"question_id": 0, "text": "?", "image": "a", "reference": "b", "pair_id": [[1]]}'),
        ("journal.jsonl", '{"format": 1, "run": {}}\n{"key": "a", "status": "ok", "output_tokens": null}\n'),
        ("journal.jsonl", '{"format": 1, "run": {}}\n{"key": "\\ud800", "status": "ok"}\n'),
        ("journal.jsonl", "[" * DEEP + "]" * DEEP + "\n"),
        ("model.safetensors.index.json", '{"weight_map": {"a": ' + "[" * DEEP + "]" * DEEP + "}}"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "' + "1" * 5000 + '"}, "b": ' + "1" * 5000 + "}"),
        ("choices.json", '[{"question_id": 1, "question": "?", "image_path": "a", "gt_answer": "A", "option_A": "A", '
         '"option_B": "B", "dataset": {}}]'),
    ],
    ids=lambda value: value[:12],
)  # fmt: skip
def test_what_fuzzing_found_in_other_readers_is_refused(tmp_path: Path, name: str, line: str):
    assert not check(format_of(name), tmp_path / name, line.encode())


@pytest.mark.parametrize("name", ["case.json", "case.jsonl"])
def test_long_white_space_takes_linear_time(tmp_path: Path, name: str):
    text = "<image> a" + " " * 400_000 + "b"
    sample = SAMPLE.replace('"?"', f'"{text}"') % "1"
    assert check(format_of(name), tmp_path / name, sample[1:-1].encode() if "jsonl" in name else sample.encode())


@pytest.mark.slow
@pytest.mark.timeout(0)  # the time is the budget
def test_many_changed_files(tmp_path: Path, record_property: Callable[[str, object], None]):
    """Seconds per reader: `soak.py` has hours."""
    seconds = float(os.environ.get(SECONDS_VARIABLE, "60")) / len(NAMES)
    seed = int(os.environ.get("GRAPHMATCH_FUZZ_SEED", "0"))
    tallies = {name: fuzz(format_of(name), tmp_path, seconds, seed) for name in NAMES}
    record_property("inputs", sum(tally.inputs for tally in tallies.values()))
    findings = {name: tally.findings for name, tally in tallies.items() if tally.findings}
    assert not findings, "\n".join(
        f"{name}: {error}: {bytes.fromhex(content)[:300]!r}"
        for name, found in findings.items()
        for error, content in found.items()
    )
