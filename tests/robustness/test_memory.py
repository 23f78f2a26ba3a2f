"""Sizes that do not fit into memory: refused at once, with the bytes, before anything of that size is made."""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import graphmatch as gm
from graphmatch import _check

FREE = 2**32
SPARSE = (gm.Portfolio(), gm.DualAscent(), gm.Tabu(), gm.Fusion(), gm.BranchAndBound(),
          gm.SpectralMatching(), gm.RRWM(), gm.IPFP(), gm.LPMP())  # fmt: skip
DENSE = (*SPARSE, gm.FAQ())


def name_of(solver: object) -> str:
    return type(solver).__name__


def zeros(*shape: int) -> torch.Tensor:
    """Costs that take no memory themselves."""
    return torch.zeros(1).expand(shape)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.fixture
def four_gigabytes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_check, "available_memory", lambda: FREE)


def require_refusal(call: Callable[[], object], at_least: float) -> None:
    """Checks that a call is refused with both numbers, and has made nothing large."""
    before = peak_bytes()
    with pytest.raises(ValueError, match="bytes") as refusal:
        call()
    assert peak_bytes() - before < 2**28
    text = str(refusal.value)
    found = re.search(
        r"must fit into the 4\.0 GiB \(4294967296 bytes\) of memory that are free; "
        r"got [\d.]+ GiB \((\d+) bytes\) to allocate\. \S",
        text,
    )
    assert found, text
    assert int(found[1]) >= at_least


@pytest.mark.usefixtures("four_gigabytes")
@pytest.mark.parametrize("solver", SPARSE, ids=name_of)
def test_sparse_problems(solver: gm.Solver):
    if isinstance(solver, gm.LPMP):
        edges = torch.zeros(20_000, 2, dtype=torch.int64)
        problem = gm.LawlerProblem(torch.zeros(1, 2, 2), zeros(1, 20_000, 20_000), edges, edges)
    else:
        edges = torch.combinations(torch.arange(900))[:400_000]
        problem = gm.LawlerProblem(torch.zeros(1, 900, 1500), zeros(1, 400_000, 1), edges, torch.tensor([[0, 1]]))
    require_refusal(lambda: gm.solve(problem, solver), 400_000 * 1500 * 4)


@pytest.mark.usefixtures("four_gigabytes")
@pytest.mark.parametrize("solver", DENSE, ids=name_of)
def test_dense_problems(solver: gm.Solver):
    problem = gm.KoopmansBeckmannProblem(zeros(1, 5000, 5000), zeros(1, 5000, 5000))
    require_refusal(lambda: gm.solve(problem, solver), 8 * 5000**2)


@pytest.mark.usefixtures("four_gigabytes")
@pytest.mark.parametrize("solver", [gm.Sinkhorn(), gm.GumbelSinkhorn(samples=4)], ids=name_of)
def test_linear_problems(solver: gm.Sinkhorn):
    costs = zeros(1, 12_000, 12_000)
    require_refusal(lambda: gm.solve(gm.LinearProblem(costs), solver), costs.numel() * 4)
    require_refusal(lambda: solver(costs), costs.numel() * 4)


@pytest.mark.usefixtures("four_gigabytes")
def test_enumeration():
    problem = gm.LinearProblem(torch.zeros(1, 14, 14))
    require_refusal(lambda: gm.BruteForce(max_matchings=10**12).solve(problem), 14 * 87_178_291_200)


def many_graphs() -> gm.MultiGraphProblem:
    edges = torch.combinations(torch.arange(200))[:15_000]
    costs = gm.LawlerProblem(torch.zeros(3, 200, 200), zeros(3, 15_000, 15_000), edges, edges)
    return gm.MultiGraphProblem(costs, torch.tensor([[0, 1], [0, 2], [1, 2]]))


def synchronize(graphs: int, nodes: int) -> torch.Tensor:
    given = torch.arange(nodes)[None]
    return gm.synchronize_matchings(given, torch.tensor([[0, 1]]), torch.full((graphs,), nodes), kind="spectral")


def structured(nodes: int) -> gm.StructuredGraph:
    return gm.StructuredGraph(torch.zeros(nodes, 2), torch.ones(nodes, nodes))


def network(nodes: int) -> object:
    return pytest.importorskip("networkx").empty_graph(nodes)


CALLS: dict[str, tuple[Callable[[], object], float]] = {
    "synchronize, many graphs": (lambda: synchronize(2000, 300), 2000**2 * 300 * 8),
    "synchronize, many nodes": (lambda: synchronize(60, 500), (60 * 500) ** 2 * 8),
    "sga_distance": (lambda: gm.sga_distance(structured(500), structured(500)), 500**4 / 2),
    "to_lawler": (lambda: gm.KoopmansBeckmannProblem(zeros(1, 300, 300), zeros(1, 300, 300)).to_lawler(), 8 * 300**4),
    "to_affinity_matrix": (
        lambda: gm.io.to_affinity_matrix(
            gm.LawlerProblem(zeros(1, 300, 300), zeros(1, 0, 0), *[torch.zeros(0, 2, dtype=torch.int64)] * 2)
        ),
        4 * 300**4,
    ),
    "from_affinity_matrix": (lambda: gm.io.from_affinity_matrix(zeros(50_000, 50_000), 250, 200), 50_000**2),
    "from_networkx": (lambda: gm.io.from_networkx(network(25_000), network(25_000)), 8 * 25_000**2),
    "knn_graph": (lambda: gm.knn_graph(torch.zeros(50_000, 2), 5), 4 * 50_000**2),
    "complete_graph": (lambda: gm.complete_graph(torch.zeros(30_000, 2)), 8 * 30_000**2),
    "cosine_affinity": (lambda: gm.cosine_affinity(torch.zeros(90_000, 2), torch.zeros(90_000, 2)), 4 * 90_000**2),
    "stack_problems": (
        lambda: gm.stack_problems([gm.LinearProblem(torch.zeros(1, *size)) for size in ((40_000, 1), (1, 40_000))]),
        8 * 40_000**2,
    ),
}


@pytest.mark.usefixtures("four_gigabytes")
@pytest.mark.parametrize("name", CALLS)
def test_other_calls(name: str):
    require_refusal(*CALLS[name])


@pytest.mark.usefixtures("four_gigabytes")
def test_problems_of_many_graphs():
    problem = many_graphs()
    require_refusal(lambda: gm.solve_multigraph(problem, gm.LocalSearch()), 15_000**2)


@pytest.mark.usefixtures("four_gigabytes")
def test_declared_sizes_of_files(tmp_path: Path):
    path = tmp_path / "case.dd"
    path.write_text("p 2000000000 2000000000 0 0\n")
    require_refusal(lambda: gm.io.read_dd(path), 4e18)


def container(root: Path, names: tuple[str, str], rooms: dict[str, tuple[str, str]]) -> None:
    """Control groups with a limit and what is used of it, both as their files have them."""
    for folder, values in rooms.items():
        place = root / folder
        place.mkdir(parents=True, exist_ok=True)
        for name, value in zip(names, values, strict=True):
            (place / name).write_text(f"{value}\n")


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system whose files lie in a folder."""
    lines = _check._lines
    monkeypatch.setattr(_check, "_physical_memory", lambda: 2**40)
    monkeypatch.setattr(_check, "_lines", lambda path: lines(tmp_path / str(path).lstrip("/")))
    (tmp_path / "proc/self").mkdir(parents=True)
    return tmp_path


def test_what_is_free_and_not_what_there_is(system: Path):
    assert _check.available_memory() == 2**40  # a system that says nothing
    (system / "proc/meminfo").write_text("MemTotal: 32000 kB\nMemFree: 10 kB\nMemAvailable:   8000 kB\n")
    assert _check.available_memory() == 8000 * 1024


def test_limits_of_containers(system: Path):
    (system / "proc/self/cgroup").write_text("0::/outer/inner\n")
    root = system / "sys/fs/cgroup"
    names = ("memory.max", "memory.current")
    container(root, names, {"outer": ("5000000", "4000000"), "outer/inner": ("max", "10")})
    assert _check.available_memory() == 1_000_000
    (root / "outer/memory.stat").write_text("anon 7\ninactive_file 300000\n")
    assert _check.available_memory() == 1_300_000
    container(root, names, {"outer/inner": ("100", "90")})
    assert _check.available_memory() == 10
    container(root, names, {"outer/inner": ("100", "200")})
    assert _check.available_memory() == 0


def test_limits_of_old_containers(system: Path):
    (system / "proc/self/cgroup").write_text("4:cpu,memory:/box\n1:name=systemd:/\n")
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    container(system / "sys/fs/cgroup/memory", names, {"box": ("3000", "1000"), "": ("9223372036854771712", "5000")})
    assert _check.available_memory() == 2000


def test_limits_of_the_process(monkeypatch: pytest.MonkeyPatch):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (used + 2**28, resource.RLIM_INFINITY))
    assert 2**27 < _check.available_memory() <= 2**28 + 2**27


def test_a_system_that_does_not_say(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(_check.os, "sysconf")
    monkeypatch.setattr(_check, "_lines", lambda path: [])
    _check.memory("example", 2**60, "Cure.")
    assert _check.available_memory() == sys.maxsize


def test_small_problems_ask_nobody(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_check, "_lines", lambda path: pytest.fail("asked the system"))
    assert gm.solve(gm.LinearProblem(torch.rand(4, 9, 9))).status.tolist() == [int(gm.Status.OPTIMAL)] * 4
    assert len(gm.knn_graph(torch.rand(50, 2), 3).edges) == 150
