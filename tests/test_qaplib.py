"""The formats of QAPLIB: known values, round trips, and a sentence with the line for every way to break them."""

from __future__ import annotations

import csv
import gzip
import lzma
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import graphmatch as gm
from graphmatch import _reference
from graphmatch.io import QaplibSolution

PLAIN = """\
3

0 3 1
3 0 0
1 0 0

0 2 5
2 0 1.5
5 1 -0.25
"""
SOLUTION = "3 10\n2 1 3\n"
HAS_OWN_FIXTURES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(folder: Path, text: str | bytes, name: str = "case.dat") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def complaint_of(read: Callable, path: Path) -> str | None:
    try:
        read(path)
    except ValueError as error:
        return str(error)
    return None


def test_a_file_is_read(tmp_path: Path):
    problem = gm.io.read_qaplib(written(tmp_path, PLAIN))
    assert problem.flow.dtype == problem.distance.dtype == torch.float64
    assert problem.flow.tolist() == [[[0, 3, 1], [3, 0, 0], [1, 0, 0]]]
    assert problem.distance.tolist() == [[[0, 2, 5], [2, 0, 1.5], [5, 1, -0.25]]]
    assert problem.linear is problem.sizes is None


def test_the_first_matrix_is_not_moved(tmp_path: Path):
    problem = gm.io.read_qaplib(written(tmp_path, "3\n0 1 0\n0 0 0\n0 0 0\n" + "1 2 3\n4 5 6\n7 8 9\n"))
    assignment = torch.tensor([[2, 0, 1]])
    assert _reference.objective(problem, assignment).tolist() == [7.0]  # B at (p(0), p(1))


@pytest.mark.parametrize("blank", [" ", "\n", "\t", "\r\n", "  \n\n "])
def test_numbers_may_be_anywhere(tmp_path: Path, blank: str):
    expected = gm.io.read_qaplib(written(tmp_path, PLAIN))
    problem = gm.io.read_qaplib(written(tmp_path, blank.join(["", *PLAIN.split(), ""])))
    assert torch.equal(problem.flow, expected.flow)
    assert torch.equal(problem.distance, expected.distance)
    solution = gm.io.read_qaplib_solution(written(tmp_path, blank.join(SOLUTION.split()), "case.sln"))
    assert solution.assignment.tolist() == [1, 0, 2]


def test_a_third_matrix_is_linear(tmp_path: Path):
    problem = gm.io.read_qaplib(written(tmp_path, PLAIN + "1 2 3 4 5 6 7 8 9"))
    assert problem.linear.tolist() == [[[1, 2, 3], [4, 5, 6], [7, 8, 9]]]
    assert torch.equal(problem.flow, gm.io.read_qaplib(written(tmp_path, PLAIN)).flow)


@pytest.mark.parametrize("name", ["a" * 251, "ä" * 125 + "a"])
def test_names_of_any_length_that_systems_take(tmp_path: Path, name: str):
    path = tmp_path / f"{name}.dat"
    assert len(os.fsencode(path.name)) == 255
    problem = gm.KoopmansBeckmannProblem(torch.ones(1, 2, 2), torch.ones(1, 2, 2))
    gm.io.write_qaplib(path, problem)
    assert gm.io.read_qaplib(path).flow.equal(problem.flow.double())
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["0", "1 2 3", "1 2 3 4"])
def test_small_sizes(tmp_path: Path, text: str):
    problem = gm.io.read_qaplib(written(tmp_path, text))
    n = int(text[0])
    assert problem.flow.shape == problem.distance.shape == (1, n, n)
    assert (problem.linear is None) == (text != "1 2 3 4")
    gm.io.write_qaplib(tmp_path / "again.dat", problem)
    assert (tmp_path / "again.dat").read_text().split() == text.split()


@pytest.mark.parametrize("suffix", [".dat", ".gz", ".xz"])
def test_compression_goes_by_suffix(tmp_path: Path, suffix: str):
    pack = {".gz": gzip.compress, ".xz": lzma.compress}.get(suffix, bytes)
    path = written(tmp_path, pack(PLAIN.encode()), f"case{suffix}")
    problem = gm.io.read_qaplib(str(path))
    assert problem.distance[0, 2, 2] == -0.25
    gm.io.write_qaplib(tmp_path / f"again{suffix}", problem)
    assert torch.equal(gm.io.read_qaplib(tmp_path / f"again{suffix}").distance, problem.distance)


@pytest.mark.parametrize("text", ["3 10 2 1 3", "3, 10\n2, 1, 3", "3 10\n2,1,3\n", "3\n10.0\n2\n1\n3\n\n"])
def test_solutions_are_read(tmp_path: Path, text: str):
    solution = gm.io.read_qaplib_solution(written(tmp_path, text, "case.sln"))
    assert (solution.n, solution.objective, solution.assignment.tolist()) == (3, 10.0, [1, 0, 2])
    assert solution.assignment.dtype == torch.int64
    gm.io.write_qaplib_solution(tmp_path / "again.sln", solution)
    assert (tmp_path / "again.sln").read_text() == SOLUTION


BROKEN = {
    "empty": ("", 1, "be followed by the number of facilities; got the end"),
    "blank": ("\n \n", 1, "be followed by the number of facilities; got the end"),
    "letters": ("QAP of size 3\n", 1, "hold the number of facilities; got 'QAP'"),
    "negative size": ("\n-3\n", 2, "hold the number of facilities, at least 0 and at most 2147483647; got '-3'"),
    "fraction": ("3.5 1\n", 1, "hold the number of facilities; got '3.5'"),
    "float size": ("3.0 1\n", 1, "hold the number of facilities; got '3.0'"),
    "underscore in size": ("1_0 1\n", 1, "hold the number of facilities; got '1_0'"),
    "absurd size": ("1000000000\n0 1 2\n", 2, "be followed by the rest of the 2000000000000000000 numbers of two"),
    "more digits": ("9" * 40 + "\n0\n", 1, "hold the number of facilities, at least 0 and at most"),
    "thousands of digits": ("9" * 6000, 1, "hold the number of facilities; got '99999"),
    "size only": ("3\n\n", 1, "be followed by the rest of the 18 numbers of two 3 x 3 matrices; got 0 so far"),
    "cut off": (PLAIN[:-6], 9, "be followed by the rest of the 18 numbers of two 3 x 3 matrices; got 17 so far"),
    "one more": (
        PLAIN + "\n7\n",
        11,
        "not go on behind the 18 numbers of two 3 x 3 matrices unless there",
    ),
    "third cut off": (PLAIN + "1 2 3\n4 5 6\n7 8", 10, "not go on behind the 18 numbers"),
    "fourth matrix": (PLAIN + "1 2 3\n4 5 6\n7 8 9\n1\n", 13, "not go on behind the 18 numbers"),
    "best known in the header": ("2 11\n0 3 1 0\n0 5 2 0\n", 3, "not go on behind the 8 numbers"),
    "word": (PLAIN.replace("1.5", "one"), 8, "hold numbers; got 'one'"),
    "decimal comma": (PLAIN.replace("1.5", "1,5"), 8, "hold numbers; got '1,5'"),
    "underscore": (PLAIN.replace("1.5", "1_5"), 8, "hold numbers; got '1_5'"),
    "nan": (PLAIN.replace("1.5", "nan"), 8, "have finite costs of at most 1e+100; got 'nan'"),
    "infinite": (PLAIN.replace("-0.25", "-inf"), 9, "have finite costs of at most 1e+100; got '-inf'"),
    "overflow": (PLAIN.replace("1.5", "1e400"), 8, "have finite costs of at most 1e+100; got '1e400'"),
    "large": (PLAIN.replace("1.5", "1e101"), 8, "have finite costs of at most 1e+100; got '1e101'"),
    "binary junk": (b"\x7fELF\x02\x00\xff" * 30, 1, "hold the number of facilities; got '\\x7fELF"),
    "digits of another script": ("٣ 1 2", 1, "hold the number of facilities; got '\\xd9"),
}
BROKEN_SOLUTIONS = {
    "empty": ("", 1, "be followed by the number of facilities; got the end"),
    "letters": ("nug12 578\n", 1, "hold the number of facilities; got 'nug12'"),
    "negative size": ("-1 578\n", 1, "hold the number of facilities, at least 0"),
    "size only": ("\n3\n", 2, "be followed by the objective; got the end"),
    "objective is a word": ("3 opt\n1 2 3", 1, "hold numbers; got 'opt'"),
    "nan": ("3 nan\n1 2 3", 1, "have finite costs"),
    "absurd size": ("1000000000 5\n1 2 3", 2, "be followed by 1000000000 locations; got 3 of them"),
    "cut off": ("3 10\n2 1\n\n", 2, "be followed by 3 locations; got 2 of them"),
    "header only": ("3 10\n", 1, "be followed by 3 locations; got 0 of them"),
    "too many": ("3 10\n2 1\n3 4\n", 3, "not go on behind 3 locations; got 4 of them"),
    "counted from 0": ("3 10\n1 0\n2\n", 2, "hold locations in [1, 3]; got 0. Locations count from 1"),
    "too large": ("3 10\n1 2\n4\n", 3, "hold locations in [1, 3]; got 4"),
    "twice": ("3 10\n1 2\n2\n", 3, "hold locations that differ; got 2 again"),
    "fraction": ("3 10\n1 2.5 3\n", 2, "hold a location in [1, 3]; got '2.5'"),
    "binary junk": (b"\x00\x01\x02" * 9, 1, "hold the number of facilities"),
}


@pytest.mark.parametrize(
    ("read", "name", "text", "line", "rule"),
    [pytest.param(gm.io.read_qaplib, "case.dat", *case, id=name) for name, case in BROKEN.items()]
    + [
        pytest.param(gm.io.read_qaplib_solution, "x.sln", *case, id=f"sln: {name}")
        for name, case in BROKEN_SOLUTIONS.items()
    ],
)
def test_a_broken_file_is_refused_by_line(
    tmp_path: Path, read: Callable, name: str, text: str | bytes, line: int, rule: str
):
    with pytest.raises(ValueError, match=r"; got .+\. [A-Z].+") as refused:
        read(written(tmp_path, text, name))
    assert str(refused.value).startswith(f"{read.__name__}: line {line} of {name} must {rule}")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("read", [gm.io.read_qaplib, gm.io.read_qaplib_solution])
def test_what_is_no_complete_file_is_refused(tmp_path: Path, read: Callable):
    for suffix, pack in [(".gz", gzip.compress), (".xz", lzma.compress)]:
        packed = pack(PLAIN.encode())
        for damaged in (packed[:-9], packed[:3], PLAIN.encode()):
            with pytest.raises(ValueError, match=rf"case\{suffix} must be a complete \{suffix} file; got "):
                read(written(tmp_path, damaged, f"case{suffix}"))
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "absent.dat")
    with pytest.raises(IsADirectoryError):
        read(tmp_path)
    with pytest.raises(TypeError, match=f"{read.__name__}: path must be a file name; got int 3"):
        read(3)


@HAS_OWN_FIXTURES
@given(text=st.one_of(st.binary(max_size=60), st.text("0123 .-,e_\n", max_size=60).map(str.encode)))
def test_any_bytes_give_an_answer_or_a_sentence(tmp_path: Path, text: bytes):
    path = written(tmp_path, text)
    for read in (gm.io.read_qaplib, gm.io.read_qaplib_solution):
        complaint = complaint_of(read, path)
        assert complaint is None or complaint.startswith(f"{read.__name__}: line ")


def test_a_file_that_is_cut_anywhere_is_refused(tmp_path: Path):
    for text, read in [(PLAIN, gm.io.read_qaplib), (SOLUTION, gm.io.read_qaplib_solution)]:
        for length in range(len(text) - len(text.split()[-1]) - 1):
            with pytest.raises(ValueError, match=f"{read.__name__}: line"):
                read(written(tmp_path, text.encode()[:length]))


@HAS_OWN_FIXTURES
@given(place=st.integers(0, 18), other=st.sampled_from(["x", "nan", "1e999", "-", "0x10", "1 1", "", "½"]))
def test_one_wrong_word_is_found(tmp_path: Path, place: int, other: str):
    words = PLAIN.split()
    words[place] = other
    complaint = complaint_of(gm.io.read_qaplib, written(tmp_path, "\n".join(words)))
    assert complaint is not None
    counted = other in ("", "1 1")  # a missing or an additional word shows at the end
    assert counted or complaint.startswith(f"read_qaplib: line {place + 1} of case.dat must ")


@HAS_OWN_FIXTURES
@given(
    seed=st.integers(0, 10**6), n=st.integers(0, 5), linear=st.booleans(), kind=st.sampled_from(["int", "real", "tiny"])
)
def test_a_written_problem_is_read_exactly(tmp_path: Path, seed: int, n: int, linear: bool, kind: str):
    generator = torch.Generator().manual_seed(seed)
    matrices = torch.randn(3, 1, n, n, generator=generator, dtype=torch.float64)
    matrices = {"int": (matrices * 1e5).round(), "real": matrices, "tiny": matrices * 1e-300}[kind]
    problem = gm.KoopmansBeckmannProblem(*matrices[: 3 if linear else 2])
    gm.io.write_qaplib(tmp_path / "case.dat", problem)
    read = gm.io.read_qaplib(tmp_path / "case.dat")
    assert torch.equal(read.flow, problem.flow)
    assert torch.equal(read.distance, problem.distance)
    assert n == 0 or (read.linear is not None) == linear
    assert not (linear and n) or torch.equal(read.linear, problem.linear)
    assert kind != "int" or "." not in (tmp_path / "case.dat").read_text()
    solution = QaplibSolution(float(matrices.sum()), torch.randperm(n, generator=generator))
    gm.io.write_qaplib_solution(tmp_path / "case.sln", solution)
    again = gm.io.read_qaplib_solution(tmp_path / "case.sln")
    assert (again.n, again.objective) == (n, solution.objective)
    assert torch.equal(again.assignment, solution.assignment)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_numbers_are_written_with_all_their_digits(tmp_path: Path, dtype: torch.dtype):
    flow = torch.tensor([[[0.1, 1 / 3], [-2e-7, 1e4]]], dtype=dtype)
    large = torch.tensor([[[-0.0, 2.0**14], [-1, 3]]], dtype=dtype).mT  # no contiguous memory
    gm.io.write_qaplib(tmp_path / "case.dat", gm.KoopmansBeckmannProblem(flow, large))
    read = gm.io.read_qaplib(tmp_path / "case.dat")
    assert torch.equal(read.flow, flow.double())
    assert torch.equal(read.distance, large.double())
    assert torch.equal(read.distance.signbit(), large.signbit())


def test_padding_is_not_written(tmp_path: Path):
    flow = torch.arange(9.0).reshape(1, 3, 3)
    padded = gm.KoopmansBeckmannProblem(flow, flow + 1, flow + 2, torch.tensor([2]))
    gm.io.write_qaplib(tmp_path / "padded.dat", padded)
    assert (tmp_path / "padded.dat").read_text() == "2\n\n0 1\n3 4\n\n1 2\n4 5\n\n2 3\n5 6\n"


def test_a_problem_without_a_form_is_refused(tmp_path: Path, make_problem: Callable[..., gm.Problem]):
    good = make_problem("koopmans_beckmann", 0, batch=1)
    for problem, error, text in [
        (make_problem("koopmans_beckmann", 0, batch=2), ValueError, "problem must be a batch of 1; got 2"),
        (make_problem("lawler", 0, batch=1), TypeError, "problem must be a KoopmansBeckmannProblem; got LawlerProblem"),
        (replace(good, linear=good.linear.clone().fill_(torch.inf)), ValueError, "problem.linear must be finite"),
    ]:
        with pytest.raises(error, match=f"write_qaplib: {text}"):
            gm.io.write_qaplib(tmp_path / "case.dat", problem)
    with pytest.raises(TypeError, match="write_qaplib_solution: solution must be a QaplibSolution; got list"):
        gm.io.write_qaplib_solution(tmp_path / "case.sln", [1, 2, 3])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("objective", "assignment", "error"),
    [
        (1.0, [0, 1], TypeError),
        (1.0, torch.tensor([0.0, 1.0]), TypeError),
        (1.0, torch.tensor([[0, 1]]), ValueError),
        (1.0, torch.tensor([1, 2]), ValueError),
        (1.0, torch.tensor([0, 0]), ValueError),
        (float("nan"), torch.tensor([0]), ValueError),
        ("578", torch.tensor([0]), ValueError),
    ],
)
def test_what_is_no_solution_is_refused(objective: object, assignment: object, error: type[Exception]):
    with pytest.raises(error, match=r"QaplibSolution: (assignment|objective) must"):
        QaplibSolution(objective, assignment)


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    problem = gm.io.read_qaplib(written(tmp_path, PLAIN))

    def fail(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="No space left"):
            gm.io.write_qaplib(tmp_path / "case.dat", problem)
    assert [path.name for path in tmp_path.iterdir()] == ["case.dat"]
    assert (tmp_path / "case.dat").read_text() == PLAIN
    for path in (tmp_path, Path(os.devnull)):
        with pytest.raises(ValueError, match="must name a new or a regular file"):
            gm.io.write_qaplib(path, problem)


def test_every_published_solution_has_its_value(data_folder: Path):
    folder = data_folder / "qaplib"
    with (folder / "bks.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == 128
    for row in rows:
        problem = gm.io.read_qaplib(folder / f"{row['name']}.dat")
        solution = gm.io.read_qaplib_solution(folder / f"{row['name']}.sln")
        assert problem.flow.shape == (1, solution.n, solution.n) == (1, int(row["n"]), int(row["n"])), row["name"]
        assert problem.linear is None
        value = float(_reference.objective(problem, solution.assignment[None]))
        assert value == solution.objective == float(row["best_known"]), row["name"]
        symmetric = [int(torch.equal(matrix, matrix.mT)) for matrix in (problem.flow, problem.distance)]
        assert symmetric == [int(row["A_symmetric"]), int(row["B_symmetric"])], row["name"]
