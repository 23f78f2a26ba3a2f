"""How methods for several graphs scale with the number of graphs and of nodes, and what they find in that time.

Every method gets the same problems: noisy shuffled copies of random feature points, priced as `BarycenterAlignment`
does. Sizes form a cross: all numbers of graphs at one number of nodes and the other way round, and its far corner.
"""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch

from graphmatch import _check
from graphmatch.graphs import Graph
from graphmatch.multigraph import (
    AllPairs,
    Best,
    MultiGraphMethod,
    MultiGraphProblem,
    MultiGraphResult,
    Star,
    Synchronize,
    solve_multigraph,
)
from graphmatch.multigraph.base import pair_solver
from graphmatch.problem import LawlerProblem
from graphmatch.solve import solve
from graphmatch.studies.barycenter_match import BarycenterGraph
from graphmatch.studies.multigraph_problems import accuracy, memory_needed, planted_copies

GRAPHS = (3, 4, 6, 8, 12, 16, 24, 32)
NODES = (8, 16, 32, 64)
STAR, CHEAPEST, BARYCENTER = "Star(0)", "Star()", "Star('barycenter')"
ALL_PAIRS, SAME_SOLVER = "AllPairs()", "AllPairs(star's solver)"
SYNCHRONIZE, BEST = "Synchronize('cliques')", "Best()"
# Makes costs of its own, which are in its time; all others are given those of all pairs.
GRAPH = "barycenter graph"
# Of the graphs and the edges that leave each node.
METHODS: dict[str, Callable[[list[Graph], int], MultiGraphMethod]] = {
    STAR: lambda graphs, neighbours: Star(0),
    CHEAPEST: lambda graphs, neighbours: Star(),
    BARYCENTER: lambda graphs, neighbours: Star("barycenter"),
    GRAPH: BarycenterGraph,
    ALL_PAIRS: lambda graphs, neighbours: AllPairs(),
    SAME_SOLVER: lambda graphs, neighbours: AllPairs(solver=pair_solver()),
    SYNCHRONIZE: lambda graphs, neighbours: Synchronize("cliques"),
    BEST: lambda graphs, neighbours: Best(),
}
_T = TypeVar("_T")
# A call that takes less is repeated, for the clock and the caches.
_SHORT, _MOST_RUNS = 0.25, 5
# The time of a size is forecast from that of the size before, on the high side.
_GRAPH_POWER, _NODE_POWER = 1.5, 3


@dataclass(frozen=True, kw_only=True)
class MultiGraphStudy:
    """Options of the study.

    Args:
        graphs: Numbers of graphs m, growing.
        nodes: Numbers of nodes n, growing.
        repetitions: Problems per size, fewer where time is short.
        noise: Standard deviation of the noise on every feature; those of the points have 1.
        features: Features of each point.
        neighbours: Edges that leave each node.
        seed: Of all problems.
        threads: Of PyTorch and the native calls. More than one wait for each other at small sizes, above all on a
            machine that is busy with other work.
        memory: Bytes; sizes whose estimate is above are left out.
        seconds: No problem is begun that would take, by the forecast, more than what is left of this time.
    """

    graphs: tuple[int, ...] = GRAPHS
    nodes: tuple[int, ...] = NODES
    repetitions: int = 3
    noise: float = 0.5
    features: int = 8
    neighbours: int = 5
    seed: int = 0
    threads: int = 1
    memory: int = 4 << 30
    seconds: float = 180.0

    def __post_init__(self) -> None:
        """Checks the options."""
        where = "MultiGraphStudy"
        for name, given, least, cure in (
            ("graphs", self.graphs, 3, "Try 3 4 6 8."),
            ("nodes", self.nodes, 2, "Try 8 16 32."),
        ):
            usable = len(given) > 0 and all(each >= least for each in given) and list(given) == sorted(set(given))
            if not usable:
                rule = f"be one or more growing numbers of at least {least}"
                raise ValueError(_check.message(where, name, rule, list(given), cure))
        for name, number in (("repetitions", self.repetitions), ("features", self.features)):
            _check.option(where, name, number, number >= 1, "be at least 1", "3 repetitions and 8 features are usual.")
        _check.option(where, "neighbours", self.neighbours, self.neighbours >= 0, "be at least 0", "5 is usual.")
        holds = 0 <= self.noise < math.inf
        _check.option(where, "noise", self.noise, holds, "be finite and at least 0", "0.5 is the default.")
        holds = 0 <= self.seed < 1 << 32
        _check.option(where, "seed", self.seed, holds, "be in [0, 2^32)", "0 is the default.")
        _check.option(where, "threads", self.threads, self.threads >= 1, "be at least 1", "1 is the default.")
        _check.option(
            where, "memory", self.memory, self.memory >= 1, "be at least 1 byte and finite", "4 GiB is the default."
        )
        _check.option(where, "seconds", self.seconds, self.seconds > 0, "be positive", "inf is no limit.")

    @property
    def usual_graphs(self) -> int:
        """Number of graphs at which the numbers of nodes are compared."""
        return self.graphs[(len(self.graphs) - 1) // 2]

    @property
    def usual_nodes(self) -> int:
        """Number of nodes at which the numbers of graphs are compared."""
        return self.nodes[(len(self.nodes) - 1) // 2]

    def sizes(self) -> list[tuple[int, int]]:
        """Returns all (m, n), the least work first."""
        cross = {(m, self.usual_nodes) for m in self.graphs} | {(self.usual_graphs, n) for n in self.nodes}
        return sorted(cross | {(self.graphs[-1], self.nodes[-1])}, key=lambda size: (_work(*size), size))


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one method did at one size; tuples have an entry per problem, None where there is none.

    Attributes:
        graphs: Number of graphs m.
        nodes: Number of nodes n of each.
        method: As it is called.
        seconds: Of the method, the costs given, but for "barycenter graph", which makes its own.
        objective: Total cost.
        excess: Relative excess of the objective over the lowest that any method found.
        gap: Relative gap between the objective and the highest bound that any method proved.
        own_gap: The same with the bound of the method itself.
        consistency_before: Cycle consistency of the pairs solved alone.
        consistency: Cycle consistency of the answer.
        accuracy: Share of nodes matched as planted.
    """

    graphs: int
    nodes: int
    method: str
    seconds: tuple[float, ...]
    objective: tuple[float, ...]
    excess: tuple[float, ...]
    gap: tuple[float | None, ...]
    own_gap: tuple[float | None, ...]
    consistency_before: tuple[float | None, ...]
    consistency: tuple[float, ...]
    accuracy: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Costs:
    """The costs of all pairs at one size.

    Attributes:
        graphs: Number of graphs m.
        nodes: Number of nodes n of each.
        seconds: It took to build them from the graphs, per problem.
        arms: Seconds for the m - 1 quadratic problems of a star alone, per problem.
        pairs: Seconds for all m (m - 1) / 2 quadratic problems with the same solver, per problem.
        memory: Estimate of the bytes that the methods take.
    """

    graphs: int
    nodes: int
    seconds: tuple[float, ...]
    arms: tuple[float, ...]
    pairs: tuple[float, ...]
    memory: int


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A size that was left out, and why."""

    graphs: int
    nodes: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """What the study found.

    Attributes:
        study: Its options.
        rows: One per size and method.
        costs: One per size.
        skipped: Sizes that were left out.
        versions: Of the packages and the machine.
        seconds: The study took.
    """

    study: MultiGraphStudy
    rows: tuple[Row, ...]
    costs: tuple[Costs, ...]
    skipped: tuple[Skipped, ...]
    versions: dict[str, str]
    seconds: float


def run_multigraph_study(study: MultiGraphStudy, progress: Callable[[str], None] = lambda text: None) -> StudyResult:
    """Runs the study.

    Args:
        study: Its options.
        progress: Called with a bar and a few words before each part.

    Example:
        >>> from graphmatch.studies.multigraph import MultiGraphStudy, run_multigraph_study
        >>> result = run_multigraph_study(MultiGraphStudy(graphs=(3, 4), nodes=(5,), repetitions=1, noise=0.0))
        >>> sorted({(row.graphs, row.nodes) for row in result.rows}), {row.accuracy for row in result.rows}
        ([(3, 5), (4, 5)], {(1.0,)})
    """
    start = time.perf_counter()
    with _threads(study.threads):
        rows, costs, skipped = _all_sizes(study, progress, start)
    return StudyResult(
        study=study,
        rows=tuple(rows),
        costs=tuple(costs),
        skipped=tuple(skipped),
        versions={
            "graphmatch": importlib.metadata.version("graphmatch"),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        },
        seconds=time.perf_counter() - start,
    )


def _all_sizes(
    study: MultiGraphStudy, progress: Callable[[str], None], start: float
) -> tuple[list[Row], list[Costs], list[Skipped]]:
    rows: list[Row] = []
    costs: list[Costs] = []
    skipped: list[Skipped] = []
    sizes = study.sizes()
    total = sum(_work(*size) for size in sizes)
    done, known = 0.0, 0.0
    progress(f"{bar(0)} first calls")
    _first_calls(study)
    for graphs, nodes in sizes:
        share = _work(graphs, nodes) / total
        memory = memory_needed(graphs, nodes, study.neighbours)
        left = max(study.seconds - (time.perf_counter() - start), 0.0)
        forecast = known * _work(graphs, nodes)
        repetitions = study.repetitions if study.repetitions * forecast <= left else int(left / forecast)
        if memory > study.memory:
            reason = f"needs about {memory / 2**30:.2g} GiB, {study.memory / 2**30:.2g} GiB are allowed"
            skipped.append(Skipped(graphs=graphs, nodes=nodes, reason=reason))
        elif repetitions < 1:
            reason = f"one problem would take about {forecast:.0f} s, {left:.0f} s of {study.seconds:g} s are left"
            skipped.append(Skipped(graphs=graphs, nodes=nodes, reason=reason))
        else:
            begun = time.perf_counter()
            show = partial(_show, progress, f"m = {graphs}, n = {nodes}", done, share)
            found, parts = _size(study, graphs, nodes, repetitions, show)
            rows += found
            costs.append(Costs(graphs=graphs, nodes=nodes, memory=memory, **parts))
            known = (time.perf_counter() - begun) / repetitions / _work(graphs, nodes)
        done += share
    return rows, costs, skipped


def _show(progress: Callable[[str], None], size: str, done: float, share: float, part: float, text: str) -> None:
    progress(f"{bar(done + part * share)} {size}: {text}")


def bar(share: float) -> str:
    """Returns a bar of 20 characters with the share in per cent."""
    filled = min(int(20 * share), 20)
    return f"[{'#' * filled}{'.' * (20 - filled)}] {100 * share:3.0f} %"


def gibibytes(number: float) -> int:
    """Returns bytes, and leaves numbers that are none for the study to refuse: 0."""
    return int(number * 2**30) if 0 < number < 2**33 else 0


def _work(graphs: int, nodes: int) -> float:
    return float(graphs**_GRAPH_POWER * nodes**_NODE_POWER)


@contextmanager
def _threads(wanted: int) -> Iterator[None]:
    """Sets the threads of PyTorch, which the native calls take too."""
    before = torch.get_num_threads()
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _copies(study: MultiGraphStudy, graphs: int, nodes: int, repetition: int) -> tuple[list[Graph], torch.Tensor]:
    # The same for all numbers of graphs, so that problems of more graphs contain those of fewer.
    seed = (study.seed << 30) + 1009 * nodes + repetition
    return planted_copies(graphs, nodes, study.noise, study.features, study.neighbours, seed)


def _first_calls(study: MultiGraphStudy) -> None:
    """Loads what is loaded at the first call, so that it is in no time."""
    copies, _ = _copies(study, 3, 4, 0)
    problem = MultiGraphProblem.from_graphs(copies)
    for make in METHODS.values():
        solve_multigraph(problem, make(copies, study.neighbours))


def _size(
    study: MultiGraphStudy, graphs: int, nodes: int, repetitions: int, show: Callable[[float, str], None]
) -> tuple[list[Row], dict[str, tuple[float, ...]]]:
    """Returns the rows of one size, and the seconds of `Costs`."""
    parts: dict[str, list[float]] = {"seconds": [], "arms": [], "pairs": []}
    found: dict[str, list[tuple[float, MultiGraphResult]]] = {name: [] for name in METHODS}
    right: dict[str, list[float]] = {name: [] for name in METHODS}
    for repetition in range(repetitions):
        copies, planted = _copies(study, graphs, nodes, repetition)
        begun = time.perf_counter()
        problem = MultiGraphProblem.from_graphs(copies)
        parts["seconds"].append(time.perf_counter() - begun)
        show(repetition / repetitions, f"pairs alone, problem {repetition + 1}")
        for part, costs in (("arms", _arms(problem)), ("pairs", problem.costs)):
            parts[part].append(_timed(partial(solve, costs, pair_solver()))[0])
        for place, (name, make) in enumerate(METHODS.items()):
            show((repetition + place / len(METHODS)) / repetitions, f"{name}, problem {repetition + 1}")
            found[name].append(_timed(partial(solve_multigraph, problem, make(copies, study.neighbours))))
            right[name].append(accuracy(found[name][-1][1], planted))
    results = {name: [result for _, result in both] for name, both in found.items()}
    problems = range(repetitions)
    lowest = [min(each[place].objective for each in results.values()) for place in problems]
    bounds = [max(each[place].lower_bound for each in results.values()) for place in problems]
    rows = [
        Row(
            graphs=graphs,
            nodes=nodes,
            method=name,
            seconds=tuple(seconds for seconds, _ in found[name]),
            objective=tuple(result.objective for result in each),
            excess=tuple(_relative(result.objective - low, low) for result, low in zip(each, lowest, strict=True)),
            gap=tuple(
                _number(_relative(result.objective - bound, result.objective))
                for result, bound in zip(each, bounds, strict=True)
            ),
            own_gap=tuple(_number(result.gap) for result in each),
            consistency_before=tuple(_number(result.consistency_before) for result in each),
            consistency=tuple(result.consistency for result in each),
            accuracy=tuple(right[name]),
        )
        for name, each in results.items()
    ]
    return rows, {part: tuple(seconds) for part, seconds in parts.items()}


def _arms(problem: MultiGraphProblem) -> LawlerProblem:
    """Returns the pairs with the first graph, with which the problems of all pairs begin."""
    costs, arms = problem.costs, problem.graph_count - 1
    return LawlerProblem(
        costs.unary_costs[:arms],
        costs.quadratic_costs[:arms],
        costs.edges1[:arms],
        costs.edges2[:arms],
        sizes=None if costs.sizes is None else costs.sizes[:arms],
        unmatched_cost=costs.unmatched_cost,
    )


def _timed(call: Callable[[], _T]) -> tuple[float, _T]:
    """Returns the least time of a few calls, of one if it is long, and the answer."""
    best, spent = math.inf, 0.0
    for _ in range(_MOST_RUNS):
        begun = time.perf_counter()
        result = call()
        taken = time.perf_counter() - begun
        best, spent = min(best, taken), spent + taken
        if spent > _SHORT:
            break
    return best, result


def _relative(difference: float, to: float) -> float:
    """Returns a difference relative to the size of a number; 0 stays 0 whatever it is relative to."""
    return 0.0 if difference == 0 else difference / max(abs(to), torch.finfo(torch.float64).tiny)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
