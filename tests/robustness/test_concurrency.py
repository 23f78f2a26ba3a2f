"""Solvers called from many threads, from forked and spawned processes and from loader workers: the serial answers."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, wait
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import graphmatch as gm

SECONDS = 60  # for what takes less than ten: more is a hang
PROBLEMS = 6
KINDS = ("portfolio", "dense", "lap", "tabu", "multigraph")


def costs(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sparse(seed: int, batch: int = 3, nodes: int = 6) -> gm.LawlerProblem:
    edges = torch.combinations(torch.arange(nodes))[::2]
    quadratic = costs(seed + 100, batch, len(edges), len(edges))
    return gm.LawlerProblem(costs(seed, batch, nodes, nodes), quadratic, edges, edges)


def answer(kind: str, seed: int) -> list:
    """Solves one problem with several threads; plain lists travel between all kinds of processes."""
    if kind == "lap":
        result = gm.solve(gm.LinearProblem(costs(seed, 8, 20, 20)), gm.LAP(threads=2))
    elif kind == "dense":
        dense = gm.KoopmansBeckmannProblem(costs(seed, 3, 7, 7), costs(seed + 1, 3, 7, 7))
        result = gm.solve(dense, gm.Portfolio(threads=2))
    elif kind == "multigraph":
        problem = gm.MultiGraphProblem(sparse(seed, nodes=4), torch.tensor([[0, 1], [0, 2], [1, 2]]))
        found = gm.solve_multigraph(problem)
        return [found.labels.tolist(), found.pair_objectives.tolist()]
    else:
        solver = gm.Portfolio(threads=2) if kind == "portfolio" else gm.Tabu(steps=200, restarts=2, threads=2)
        result = gm.solve(sparse(seed), solver)
    return [result.assignment.tolist(), result.objective.tolist(), result.lower_bound.tolist()]


def all_answers(seed: int) -> list:
    return [answer(kind, seed) for kind in KINDS]


class Answers(Dataset):
    """Solves in the worker."""

    def __len__(self) -> int:
        return PROBLEMS

    def __getitem__(self, index: int) -> list:
        return all_answers(index)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch):
    """Spawned processes import this file by its name."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2])


@pytest.fixture(scope="module")
def expected() -> list:
    """The serial answers; making them starts the native threads of this process."""
    return [all_answers(seed) for seed in range(PROBLEMS)]


@pytest.mark.timeout(SECONDS)
def test_eight_threads_with_all_solvers_at_once(expected: list):
    tasks = [(kind, seed) for seed in range(PROBLEMS) for kind in KINDS] * 3
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda task: answer(*task), tasks))
    for (kind, seed), each in zip(tasks, found, strict=True):
        assert each == expected[seed][KINDS.index(kind)], (kind, seed)


@pytest.mark.timeout(SECONDS)
def test_threads_that_share_one_problem(expected: list):
    problem, solver = sparse(0), gm.Portfolio(threads=2)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: gm.solve(problem, solver).assignment.tolist(), range(24)))
    assert found == [expected[0][KINDS.index("portfolio")][0]] * 24


@pytest.mark.timeout(2 * SECONDS)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_child_processes_of_a_parent_that_has_solved(expected: list, method: str):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"the system has no {method}")
    pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method))
    futures = [pool.submit(all_answers, seed) for seed in range(PROBLEMS)]
    _, hanging = wait(futures, SECONDS)
    for process in list(pool._processes.values()) if hanging else []:
        process.kill()
    pool.shutdown(cancel_futures=True)
    assert not hanging
    assert [future.result() for future in futures] == expected
    assert all_answers(0) == expected[0]  # and the parent goes on


@pytest.mark.timeout(2 * SECONDS)
@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_loader_workers(expected: list, method: str):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"the system has no {method}")
    loader = DataLoader(
        Answers(), batch_size=None, num_workers=2, multiprocessing_context=method, timeout=SECONDS, collate_fn=None
    )
    assert list(loader) == expected


FORK_WHILE_SOLVING = """
import os, signal, threading, torch, graphmatch as gm
numbers = torch.Generator().manual_seed(0)
problem = gm.LinearProblem(torch.rand(16, 30, 30, generator=numbers))
expected = gm.solve(problem, gm.LAP(threads=4)).objective
stop = threading.Event()

def keep_solving():
    while not stop.is_set():
        gm.solve(problem, gm.LAP(threads=4))

callers = [threading.Thread(target=keep_solving) for _ in range(3)]
for caller in callers:
    caller.start()
codes = []
for _ in range(150):
    child = os.fork()
    if child == 0:
        signal.alarm(10)  # ends a child that hangs
        same = torch.equal(gm.solve(problem, gm.LAP(threads=4)).objective, expected)
        os._exit(0 if same else 3)
    codes.append(os.waitpid(child, 0)[1])
stop.set()
for caller in callers:
    caller.join()
assert codes == [0] * 150, codes
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the system has no fork")
def test_forks_while_other_threads_solve():
    subprocess.run([sys.executable, "-c", FORK_WHILE_SOLVING], check=True, timeout=SECONDS)
