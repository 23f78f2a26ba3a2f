"""The .dd format: known answers, round trips, and a sentence with the line for every way to break it."""

from __future__ import annotations

import gzip
import itertools
import lzma
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import graphmatch as gm
from graphmatch import _check, _reference

PLAIN = """\
c two nodes on each side
p 2 2 4 2
i0 0 1.5 2.5
i1 0 1.5 2.5
n0 0 1
n1 0 1

a 0 0 0 -1
a 1 0 1 0.5
a 2 1 0 +.25
a 3 1 1 -1e-1
e 0 3 -2.5
e 2 1 1
"""
MULTIGRAPH = """\
c three graphs
gm 0 1
p 2 3 2 1
a 0 0 0 -1
a 1 1 2 -2
e 0 1 -4
gm 2 1
p 1 3 0 0
a 0 0 1 5
"""
HAS_OWN_FIXTURES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(folder: Path, text: str | bytes, name: str = "case.dd") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def complaint_of(read: Callable, path: Path) -> str | None:
    try:
        read(path)
    except ValueError as error:
        return str(error)
    return None


def matchings(n1: int, n2: int) -> Iterator[list[int]]:
    """Every matching of n1 to n2 nodes, complete or not."""
    for images in itertools.product(range(-1, n2), repeat=n1):
        used = [image for image in images if image >= 0]
        if len(set(used)) == len(used):
            yield list(images)


def objectives(problem: gm.LawlerProblem, n1: int, n2: int) -> torch.Tensor:
    """The objective of every matching, by the reference."""
    width = problem.unary_costs.shape[1]
    rows = [images + [-1] * (width - n1) for images in matchings(n1, n2)]
    return torch.cat([_reference.objective(problem, torch.tensor([row]).reshape(1, width)) for row in rows])


def test_every_kind_of_line_is_read(tmp_path: Path):
    problem = gm.io.read_dd(written(tmp_path, PLAIN))
    assert problem.unary_costs.dtype == problem.quadratic_costs.dtype == torch.float64
    assert problem.unary_costs.tolist() == [[[-1.0, 0.5], [0.25, -0.1]]]
    assert problem.edges1.tolist() == [[[0, 1]]]
    assert problem.edges2.tolist() == [[[0, 1], [1, 0]]]
    assert problem.quadratic_costs.tolist() == [[[-2.5, 1.0]]]
    assert problem.unmatched_cost == 0.0
    assert problem.sizes is None


def test_what_is_not_listed_is_forbidden(tmp_path: Path):
    problem = gm.io.read_dd(written(tmp_path, "p 2 3 1 0\na 0 1 2 -4\n"))
    assert problem.unary_costs[0].isinf().sum() == 5
    assert problem.quadratic_costs.shape == (1, 0, 0)
    result = gm.solve(problem)
    assert result.assignment.tolist() == [[-1, 2]]
    assert result.objective.tolist() == [-4.0]


def test_pairs_in_either_order_add_up_and_conflicts_are_inert(tmp_path: Path):
    lines = "p 2 2 4 5\na 0 1 1 0\na 1 0 0 0\na 2 0 1 0\na 3 1 0 0\ne 0 1 -1\ne 1 0 -2\ne 0 2 -50\ne 1 3 nan\ne 3 2 7\n"
    problem = gm.io.read_dd(written(tmp_path, lines.replace("nan", "-60")))
    assert problem.edges1.tolist() == [[[0, 1]]]
    assert problem.edges2.tolist() == [[[0, 1], [1, 0]]]
    assert problem.quadratic_costs.tolist() == [[[-3.0, 7.0]]]


@pytest.mark.parametrize("sizes", ["0 0", "0 3", "3 0"])
def test_graphs_without_nodes(tmp_path: Path, sizes: str):
    problem = gm.io.read_dd(written(tmp_path, f"p {sizes} 0 0"))
    assert problem.unary_costs.shape[1:] == tuple(map(int, sizes.split()))
    gm.io.write_dd(tmp_path / "again.dd", problem)
    assert (tmp_path / "again.dd").read_text() == f"p {sizes} 0 0\n"


@pytest.mark.parametrize("declared", ["4 2", "0 2", "4 0", "0 0"])
def test_a_declared_zero_leaves_the_number_open(tmp_path: Path, declared: str):
    text = PLAIN.replace("p 2 2 4 2", f"p 2 2 {declared}")
    assert gm.io.read_dd(written(tmp_path, text)).quadratic_costs.tolist() == [[[-2.5, 1.0]]]


@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
@pytest.mark.parametrize("suffix", ["", ".dd", ".gz", ".xz"])
def test_compression_goes_by_suffix(tmp_path: Path, suffix: str, ends: bytes):
    pack = {".gz": gzip.compress, ".xz": lzma.compress}.get(suffix, bytes)
    path = written(tmp_path, pack(PLAIN.encode().replace(b"\n", ends)), f"case{suffix}")
    assert gm.io.read_dd(str(path)).quadratic_costs.tolist() == [[[-2.5, 1.0]]]


BROKEN = {
    "empty": ("", 1, "be followed by a line `p n1 n2 assignments pairs`; got the end"),
    "only comments": ("c one\nc two\n", 1, "be followed by a line `p"),
    "no p line": ("c one\na 0 0 0 1\n", 2, "follow a `p` line; got 'a 0 0 0 1'"),
    "pair before p": ("e 0 1 1\n", 1, "follow a `p` line"),
    "second p line": ("p 1 1 0 0\np 1 1 0 0\n", 2, "not declare sizes a second time"),
    "short p line": ("p 1 1\n", 1, "have the form `p n1 n2 assignments pairs`; got 'p 1 1'"),
    "long p line": ("p 1 1 0 0 0\n", 1, "have the form `p"),
    "fraction of a node": ("p 1.5 1 0 0\n", 1, "have the form `p"),
    "negative size": ("p 1 -1 0 0\n", 1, "declare sizes of at least 0"),
    "absurd size": ("p 1 99999999999 0 0\n", 1, "declare at most 2147483647 nodes; got 99999999999"),
    "unknown letter": ("p 1 1 0 0\nx 1\n", 2, "begin with one of p, a, e, gm, c, i0, i1, n0, n1; got 'x 1'"),
    "glued letter": ("p 1 1 0 0\na0 0 0 1\n", 2, "begin with one of"),
    "binary junk": (b"\x7fELF\x02\x00\xff" * 30, 1, "begin with one of"),
    "short a line": ("p 1 1 1 0\na 0 0 0\n", 2, "have the form `a id node1 node2 cost`; got 'a 0 0 0'"),
    "long a line": ("p 1 1 1 0\na 0 0 0 1 1\n", 2, "have the form `a"),
    "bad cost": ("p 1 1 1 0\na 0 0 0 1,5\n", 2, "have the form `a"),
    "underscore": ("p 1 1 1 0\na 0 0 0 1_0\n", 2, "hold plain numbers"),
    "digits of another script": ("p 1 1 1 0\na 0 0 0 ٣\n", 2, "have the form `a"),
    "nan": ("p 1 1 1 0\na 0 0 0 nan\n", 2, "have a finite cost of at most 1e+100; got nan"),
    "infinite": ("p 1 1 1 0\na 0 0 0 inf\n", 2, "have a finite cost of at most 1e+100; got inf"),
    "overflow": ("p 1 1 1 0\na 0 0 0 -1e101\n", 2, "have a finite cost of at most 1e+100; got -1e+101"),
    "first id is not 0": ("p 1 1 1 0\na 1 0 0 1\n", 2, "have the id 0; got 1"),
    "ids out of order": ("p 1 2 2 0\na 0 0 0 1\na 2 0 1 1\n", 3, "have the id 1; got 2"),
    "same id again": ("p 1 2 2 0\na 0 0 0 1\na 0 0 1 1\n", 3, "have the id 1; got 0"),
    "row out of range": ("p 2 9 1 0\na 0 2 0 1\n", 2, "have a node1 in [0, 2) and a node2 in [0, 9); got 2 and 0"),
    "column out of range": ("p 9 2 1 0\na 0 0 -1 1\n", 2, "have a node1 in [0, 9) and a node2 in [0, 2); got 0 and -1"),
    "same nodes again": ("p 1 1 2 0\na 0 0 0 1\na 1 0 0 1\n", 3, "assign two nodes that no line before it assigns"),
    "too many assignments": ("p 1 2 1 0\na 0 0 0 1\na 1 0 1 1\n", 3, "not follow the 1 assignments that are declared"),
    "too few assignments": (
        "p 1 2 2 0\na 0 0 0 1\nc end\n",
        2,
        "be followed by the rest of the 2 declared assignments; got 1 so far",
    ),
    "short e line": ("p 2 2 2 1\na 0 0 0 1\na 1 1 1 1\ne 0 1\n", 4, "have the form `e id1 id2 cost`; got 'e 0 1'"),
    "nan pair": ("p 2 2 2 1\na 0 0 0 1\na 1 1 1 1\ne 0 1 nan\n", 4, "have a finite cost"),
    "unknown id": ("p 2 2 2 1\na 0 0 0 1\na 1 1 1 1\ne 0 2 1\n", 4, "name two different ones of the 2 assignments"),
    "negative id": ("p 2 2 2 1\na 0 0 0 1\na 1 1 1 1\ne 0 -1 1\n", 4, "name two different ones of the 2 assignments"),
    "pair of one": ("p 2 2 2 1\na 0 0 0 1\na 1 1 1 1\ne 1 1 1\n", 4, "name two different ones of the 2 assignments"),
    "huge id": (f"p 2 2 2 1\na 0 0 0 1\na 1 1 1 1\ne 0 {'9' * 25} 1\n", 4, "name two different ones"),
    "too many pairs": (PLAIN + "e 0 3 1\n", 14, "not follow the 2 pairs that are declared"),
    "too few pairs": (
        PLAIN.replace("e 2 1 1\n", ""),
        12,
        "be followed by the rest of the 2 declared pairs; got 1 so far",
    ),
    "multi-graph": (MULTIGRAPH, 2, "not begin a block of a multi-graph file; got 'gm 0 1'. Read the file with"),
}
BROKEN_MULTIGRAPH = {
    "empty": ("", 1, "be followed by a line `gm i j`; got the end"),
    "single": (PLAIN, 2, "follow a line `gm i j`; got 'p 2 2 4 2'. Read a file of one pair of graphs with read_dd."),
    "short gm line": ("gm 0\n", 1, "have the form `gm i j`"),
    "one graph": ("gm 1 1\n", 1, "name two different graphs"),
    "negative graph": ("gm -1 1\n", 1, "name two different graphs"),
    "pair again": (MULTIGRAPH + "gm 1 0\np 3 2 0 0\n", 10, "name a pair of graphs that has no block before it"),
    "no sizes": (MULTIGRAPH + "gm 0 2\n", 10, "be followed by a line `p n1 n2"),
    "block cut off": (MULTIGRAPH.replace("e 0 1 -4\n", ""), 5, "be followed by the rest of the 1 declared pairs"),
    "other size": (MULTIGRAPH.replace("p 1 3", "p 1 2"), 8, "give graph 1 the 3 nodes of the blocks before it; got 2"),
    "foreign ids": (MULTIGRAPH + "e 0 1 1\n", 10, "name two different ones of the 1 assignments before it"),
}


@pytest.mark.parametrize(
    ("read", "text", "line", "rule"),
    [pytest.param(gm.io.read_dd, *case, id=name) for name, case in BROKEN.items()]
    + [pytest.param(gm.io.read_multigraph_dd, *case, id=f"gm: {name}") for name, case in BROKEN_MULTIGRAPH.items()],
)
def test_a_broken_file_is_refused_by_line(tmp_path: Path, read: Callable, text: str | bytes, line: int, rule: str):
    with pytest.raises(ValueError, match=r"; got .+\. [A-Z].+") as refused:
        read(written(tmp_path, text))
    assert str(refused.value).startswith(f"{read.__name__}: line {line} of case.dd must {rule}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_a_damaged_compressed_file_is_refused(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]):
    lines = ["p 200 200 0 0", *(f"a {i * 200 + k} {i} {k} {(i * k) ** 0.5}" for i in range(200) for k in range(200))]
    packed = pack("\n".join(lines).encode())
    for damaged in (packed[: len(packed) // 2], packed[:40], packed[:3], b"c plain text\np 1 1 0 0\n"):
        with pytest.raises(
            ValueError, match=rf"case\{suffix} must be a complete \{suffix} file; got one that breaks after line \d+"
        ):
            gm.io.read_dd(written(tmp_path, damaged, f"case{suffix}"))
    with pytest.raises(ValueError, match="after line") as refused:
        gm.io.read_dd(written(tmp_path, packed[: len(packed) // 2], f"case{suffix}"))
    cut = str(refused.value)
    assert 1000 < int(cut.split("after line ")[1].split()[0]) < len(lines)


def test_nothing_is_read_from_what_is_no_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        gm.io.read_dd(tmp_path / "absent.dd")
    with pytest.raises(IsADirectoryError):
        gm.io.read_dd(tmp_path)
    with pytest.raises(TypeError, match="read_dd: path must be a file name; got int 3"):
        gm.io.read_dd(3)


def test_a_problem_that_does_not_fit_into_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match=r"read_dd: the problem must fit into .* GiB .*case\.dd has too many nodes"):
        gm.io.read_dd(written(tmp_path, "p 2000000000 2000000000 0 0\n"))
    # A chain of n nodes mapped onto a chain by the diagonal: n assignments, n pairs, but (n - 1)^2 places for them.
    n = 300
    lines = [f"p {n} {n} 0 0", *(f"a {i} {i} {i} 0" for i in range(n)), *(f"e {i} {i + 1} 1" for i in range(n - 1))]
    path = written(tmp_path, "\n".join(lines))
    assert gm.io.read_dd(path).quadratic_costs.shape == (1, n - 1, n - 1)
    monkeypatch.setattr(_check.os, "sysconf", lambda name: 1000)
    with pytest.raises(ValueError, match=r"must fit into the 0\.0 GiB \(1000000 bytes\) of memory that are free"):
        gm.io.read_dd(path)


@HAS_OWN_FIXTURES
@given(text=st.one_of(st.binary(max_size=60), st.text("paegmci01 .-_\n", max_size=60).map(str.encode)))
def test_any_bytes_give_a_problem_or_a_sentence(tmp_path: Path, text: bytes):
    path = written(tmp_path, text)
    for read in (gm.io.read_dd, gm.io.read_multigraph_dd):
        complaint = complaint_of(read, path)
        assert complaint is None or complaint.startswith(f"{read.__name__}: line ")


def test_a_file_that_is_cut_anywhere_is_refused(tmp_path: Path):
    end_of_last_number = PLAIN.encode().rindex(b" ") + 2
    for length in range(end_of_last_number):
        with pytest.raises(ValueError, match="read_dd: line"):
            gm.io.read_dd(written(tmp_path, PLAIN.encode()[:length]))


SHAPES = {"n1": st.integers(0, 3), "n2": st.integers(0, 3), "e1": st.integers(0, 5), "e2": st.integers(0, 5)}


@HAS_OWN_FIXTURES
@given(seed=st.integers(0, 10**6), integers=st.booleans(), forbidden=st.sampled_from([0.0, 0.4]), **SHAPES)
def test_a_written_problem_is_read_with_the_same_objective(
    tmp_path: Path,
    make_problem: Callable[..., gm.LawlerProblem],
    seed: int,
    integers: bool,
    forbidden: float,
    **shape: int,
):
    problem = make_problem("lawler", seed, batch=1, unmatched_cost=0.0, integers=integers, forbidden=forbidden, **shape)
    path, again = tmp_path / "problem.dd", tmp_path / "again.dd"
    gm.io.write_dd(path, problem)
    read = gm.io.read_dd(path)
    n1, n2 = shape["n1"], shape["n2"]
    before, after = objectives(problem, n1, n2), objectives(read, n1, n2)
    torch.testing.assert_close(after, before, rtol=0, atol=0 if integers else 1e-12)
    assert float(gm.BruteForce().solve(read).objective) == pytest.approx(float(before.min()))
    gm.io.write_dd(again, read)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_numbers_are_written_with_all_their_digits(tmp_path: Path, dtype: torch.dtype):
    unary = torch.tensor([[[0.1, 1 / 3], [-2e-7, torch.inf]]], dtype=dtype)
    none = torch.zeros(0, 2, dtype=torch.int64)
    problem = gm.LawlerProblem(unary, torch.zeros(1, 0, 0, dtype=dtype), none, none, unmatched_cost=0)
    gm.io.write_dd(tmp_path / "case.dd", problem)
    assert torch.equal(gm.io.read_dd(tmp_path / "case.dd").unary_costs, unary.double())


def test_loops_become_costs_of_assignments(tmp_path: Path):
    edges1, edges2 = torch.tensor([[0, 0], [0, 1]]), torch.tensor([[1, 1], [1, 0]])
    quadratic = torch.tensor([[[8.0, 16.0], [32.0, 64.0]]])  # 16 and 32 ask for one node on two
    problem = gm.LawlerProblem(torch.zeros(1, 2, 2), quadratic, edges1, edges2, unmatched_cost=0.0)
    gm.io.write_dd(tmp_path / "case.dd", problem)
    expected = "p 2 2 4 1\na 0 0 0 0.0\na 1 0 1 8.0\na 2 1 0 0.0\na 3 1 1 0.0\ne 1 2 64.0\n"
    assert (tmp_path / "case.dd").read_text() == expected


def test_padding_is_not_written(tmp_path: Path, make_problem: Callable[..., gm.LawlerProblem]):
    small = make_problem("lawler", 1, batch=1, n1=2, n2=3, unmatched_cost=0.0)
    large = make_problem("lawler", 2, batch=1, n1=4, n2=4, e1=9, e2=8, unmatched_cost=0.0)
    both = gm.stack_problems([small, large])
    views = {name: value[:1] for name, value in vars(both).items() if isinstance(value, torch.Tensor)}
    gm.io.write_dd(tmp_path / "padded.dd", replace(both, **views))
    gm.io.write_dd(tmp_path / "small.dd", small)
    assert (tmp_path / "padded.dd").read_bytes() == (tmp_path / "small.dd").read_bytes()


def test_a_problem_without_a_form_is_refused(tmp_path: Path, make_problem: Callable[..., gm.LawlerProblem]):
    path = tmp_path / "case.dd"
    good = make_problem("lawler", 0, batch=1, unmatched_cost=0.0)
    for problem, error, text in [
        (make_problem("lawler", 0, batch=2, unmatched_cost=0.0), ValueError, "problem must be a batch of 1; got 2"),
        (replace(good, unmatched_cost=None), ValueError, "problem must have an unmatched_cost of 0.0; got None"),
        (replace(good, unmatched_cost=1.5), ValueError, r"unmatched_cost of 0.0; got 1.5\. Subtract it"),
        (make_problem("linear", 0, batch=1), TypeError, "problem must be a LawlerProblem; got LinearProblem"),
    ]:
        with pytest.raises(error, match=f"write_dd: .*{text}"):
            gm.io.write_dd(path, problem)
        with pytest.raises(error, match=r"write_multigraph_dd: problems\[0, 1\] must"):
            gm.io.write_multigraph_dd(path, {(0, 1): problem})
    assert not path.exists()


def test_subtracting_the_unmatched_cost_shifts_every_objective(make_problem: Callable[..., gm.LawlerProblem]):
    problem = make_problem("lawler", 3, batch=1, n1=3, n2=3, unmatched_cost=1.5)
    shifted = replace(problem, unary_costs=problem.unary_costs - 1.5, unmatched_cost=0.0)
    torch.testing.assert_close(objectives(shifted, 3, 3), objectives(problem, 3, 3) - 3 * 1.5)


def test_several_graphs(tmp_path: Path):
    problems = gm.io.read_multigraph_dd(written(tmp_path, MULTIGRAPH))
    assert list(problems) == [(0, 1), (2, 1)]
    assert problems[0, 1].quadratic_costs.tolist() == [[[-4.0]]]
    assert problems[0, 1].edges2.tolist() == [[[0, 2]]]
    assert problems[2, 1].unary_costs.tolist() == [[[torch.inf, 5.0, torch.inf]]]
    gm.io.write_multigraph_dd(tmp_path / "again.xz", problems)
    again = gm.io.read_multigraph_dd(tmp_path / "again.xz")
    assert list(again) == list(problems)
    for pair, problem in problems.items():
        assert torch.equal(again[pair].unary_costs, problem.unary_costs)
        assert torch.equal(again[pair].quadratic_costs, problem.quadratic_costs)


def test_several_graphs_that_do_not_fit_are_refused(tmp_path: Path, make_problem: Callable[..., gm.LawlerProblem]):
    problem = make_problem("lawler", 0, batch=1, n1=2, n2=3, unmatched_cost=0.0)
    for problems, error, text in [
        ([problem], TypeError, "problems must be a mapping; got list"),
        ({}, ValueError, "problems must hold at least 1 problem; got 0"),
        ({(0, 0): problem}, ValueError, r"must have keys \(i, j\) of two different .*; got \(0, 0\)"),
        ({(0, -1): problem}, ValueError, r"must have keys"),
        ({0: problem}, ValueError, r"must have keys"),
        ({(0, 1): problem, (1, 0): problem}, ValueError, "hold each pair of graphs once"),
        ({(0, 1): problem, (1, 2): problem}, ValueError, r"problems\[1, 2\] must give graph 1 the 3 nodes .*; got 2"),
    ]:
        with pytest.raises(error, match=f"write_multigraph_dd: .*{text}"):
            gm.io.write_multigraph_dd(tmp_path / "case.dd", problems)
    assert list(tmp_path.iterdir()) == []


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = written(tmp_path, "c the old file\n")
    problem = gm.io.read_dd(written(tmp_path, PLAIN, "plain.dd"))

    def fail(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="No space left"):
            gm.io.write_dd(path, problem)
    assert path.read_text() == "c the old file\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["case.dd", "plain.dd"]
    link = tmp_path / "link.dd"
    link.symlink_to(path)
    gm.io.write_dd(link, problem)
    assert link.is_symlink()
    assert gm.io.read_dd(path).quadratic_costs.tolist() == [[[-2.5, 1.0]]]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_only_files_are_replaced(tmp_path: Path):
    problem = gm.io.read_dd(written(tmp_path, PLAIN))
    for path in (tmp_path, Path(os.devnull)):
        with pytest.raises(ValueError, match="write_dd: path must name a new or a regular file; got "):
            gm.io.write_dd(path, problem)
    with pytest.raises(FileNotFoundError):
        gm.io.write_dd(tmp_path / "absent" / "case.dd", problem)


def test_benchmark_instances_have_their_known_values(data_folder: Path):
    folder = data_folder / "graph_matching_dd" / "gm"
    motor = gm.io.read_dd(folder / "motor1.dd.xz")
    assert motor.quadratic_costs.count_nonzero() == 29_040
    identity = torch.arange(46)[None]
    assert float(_reference.objective(motor, identity)) == pytest.approx(-94.17718, abs=1e-9)
    opengm = gm.solve(gm.io.read_dd(folder / "opengm1.dd.xz"))
    assert float(opengm.lower_bound) <= -170.637097 <= float(opengm.objective) + 1e-6


def test_every_benchmark_file_is_read(data_folder: Path):
    folder = data_folder / "graph_matching_dd"
    for line in (folder / "index.csv").read_text().splitlines()[1:]:
        name, pairs, n1, n2, assignments, terms, *_ = line.split(",")
        several = name.startswith("mgm/")
        problems = list(gm.io.read_multigraph_dd(folder / name).values()) if several else [gm.io.read_dd(folder / name)]
        assert len(problems) == int(pairs), name
        assert problems[0].unary_costs.shape == (1, int(n1), int(n2)), name
        assert sum(int(problem.unary_costs.isfinite().sum()) for problem in problems) == int(assignments), name
        assert sum(int(problem.quadratic_costs.count_nonzero()) for problem in problems) <= int(terms), name
