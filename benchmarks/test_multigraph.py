"""Several graphs matched at once: planted sets of 3 to 16 graphs, and real ones where `GRAPHMATCH_DATA` leads to them.

A row is one solver on the sets of one size; it holds a number for each of them. The benchmarked time is solving alone;
models are built apart from it, in the same run. All solvers get one thread and their default options.
"""

from __future__ import annotations

import math
import time
from functools import cache
from itertools import cycle
from typing import Any

import numpy as np
import pytest

import graphmatch as gm
from benchmarks.multigraph_cases import MultigraphCase, planted_case, real_case, real_files
from benchmarks.multigraph_peers import OURS, PEERS, Answer, Entrant
from benchmarks.peers import installed
from benchmarks.timing import torch_threads

# Seeds of the planted sets, by the number of graphs.
_SEEDS = {3: 3, 4: 3, 5: 3, 6: 3, 8: 3, 12: 2, 16: 2}
_ENTRANTS = {entrant.name: entrant for entrant in [*OURS, *PEERS]}

pytestmark = pytest.mark.benchmark(group="multigraph")


def _parameter(case: int | str, entrant: Entrant) -> Any:
    reason = f"{entrant.package} is not installed"
    return pytest.param(case, entrant.name, marks=pytest.mark.skipif(not installed(entrant.package), reason=reason))


def _planted_sets() -> list[Any]:
    entrants = _ENTRANTS.values()
    return [_parameter(graphs, each) for graphs in _SEEDS for each in entrants if graphs <= each.largest]


def _real_sets() -> list[Any]:
    sets = [_parameter(file, each) for file in real_files() for each in _ENTRANTS.values() if not each.planted_only]
    reason = "GRAPHMATCH_DATA names no folder with graph_matching_dd"
    return sets or [pytest.param("", "", marks=pytest.mark.skip(reason=reason), id="none")]


@cache
def _warm(entrant: Entrant) -> None:
    """Lets a solver load what it loads at its first call."""
    case = planted_case(3, 0)
    entrant.solve(case, entrant.build(case))


def _compete(benchmark: Any, entrant: Entrant, cases: list[MultigraphCase]) -> None:
    """Times building and solving, and judges the cheapest answer to each case."""
    _warm(entrant)
    build_times: list[list[float]] = [[] for _ in cases]
    solve_times: list[list[float]] = [[] for _ in cases]
    answers: list[list[Answer]] = [[] for _ in cases]
    turns = cycle(range(len(cases)))

    def build() -> tuple[tuple[int, Any], dict[str, Any]]:
        place = next(turns)
        start = time.perf_counter()
        model = entrant.build(cases[place])
        build_times[place].append(time.perf_counter() - start)
        return (place, model), {}

    def solve(place: int, model: Any) -> None:
        start = time.perf_counter()
        answers[place].append(entrant.solve(cases[place], model))
        solve_times[place].append(time.perf_counter() - start)

    benchmark.pedantic(solve, setup=build, rounds=entrant.rounds * len(cases))
    verdicts = [_verdict(case, found) for case, found in zip(cases, answers, strict=True)]
    benchmark.extra_info |= {
        "solver": entrant.name,
        "package": entrant.package,
        "threads": entrant.threads,
        "graphs": cases[0].graphs,
        "nodes": int(cases[0].problem().node_counts.max()),
        "cases": [case.name for case in cases],
        "build_s": [float(np.median(times)) for times in build_times],
        "solve_s": [float(np.median(times)) for times in solve_times],
        **{name: [verdict[name] for verdict in verdicts] for name in verdicts[0]},
    }


def _verdict(case: MultigraphCase, answers: list[Answer]) -> dict[str, float | None]:
    """Judges the cheapest of several answers: some solvers draw random numbers."""
    judged = [(case.judge(answer.assignment), answer.lower_bound) for answer in answers]
    verdict, bound = min(judged, key=lambda each: each[0]["objective"])
    return {**verdict, "lower_bound": bound if bound is not None and math.isfinite(bound) else None}


@pytest.mark.parametrize(("graphs", "solver"), _planted_sets())
def test_planted(benchmark: Any, graphs: int, solver: str):
    _compete(benchmark, _ENTRANTS[solver], [planted_case(graphs, seed) for seed in range(_SEEDS[graphs])])
    benchmark.extra_info["family"] = "planted"


@pytest.mark.parametrize(("file", "solver"), _real_sets())
def test_real(benchmark: Any, file: str, solver: str):
    _compete(benchmark, _ENTRANTS[solver], [real_case(file)])
    benchmark.extra_info["family"] = "real"


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("task", ["AllPairs", "the pairs alone"])
def test_threads(benchmark: Any, task: str, threads: int):
    """All pairs of the largest set: made consistent, and each on its own by the default solver."""
    case = planted_case(max(_SEEDS), 0)
    problem = case.problem()
    with torch_threads(threads):
        if task == "AllPairs":
            result = benchmark.pedantic(gm.AllPairs().solve, (problem,), rounds=9, warmup_rounds=2)
            bound = result.lower_bound
        else:
            matched = benchmark.pedantic(gm.solve, (problem.costs,), rounds=3, warmup_rounds=1)
            result, bound = matched, float(matched.lower_bound.sum())
    benchmark.extra_info |= {"family": "threads", "solver": task, "graphs": case.graphs}
    benchmark.extra_info |= {"problems": len(problem.pairs), "lower_bound": bound}
    benchmark.extra_info |= case.judge(result.assignment.numpy())
