"""Swap SciPy or pygmtools for graphmatch: the same calls side by side, with what they find and how long they take.

You learn which call stands for which; docs/switching.md has the full table.
The problems are quadratic assignments of 24 facilities to sites, a batch of linear assignments, an affinity matrix.
The script prints objectives and times of all calls, and whether any answer of graphmatch is worse than its peer's.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _script import THEMES, label_curves, panels, run
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment, quadratic_assignment

import graphmatch as gm
from graphmatch import viz

FACILITIES, PROBLEMS = 24, 6
Matrix = NDArray[np.float64]

# The same arguments for both; "portfolio" is what graphmatch has besides, and it proves a lower bound.
QUADRATIC: dict[str, Callable[[Matrix, Matrix, np.random.Generator], Any]] = {
    "scipy faq": lambda flow, distance, rng: quadratic_assignment(flow, distance, "faq", {"rng": rng}),
    "scipy 2opt": lambda flow, distance, rng: quadratic_assignment(flow, distance, "2opt", {"rng": rng}),
    "graphmatch faq": lambda flow, distance, rng: gm.quadratic_assignment(flow, distance, "faq", {"rng": rng}),
    "graphmatch 2opt": lambda flow, distance, rng: gm.quadratic_assignment(flow, distance, "2opt", {"rng": rng}),
    "graphmatch portfolio": lambda flow, distance, _: gm.quadratic_assignment(flow, distance, "portfolio"),
}


def timed(call: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """Returns what a call returns, and its milliseconds: those of the quicker one of two calls."""
    spent = []
    for _ in range(2):
        start = time.perf_counter()
        answer = call(*arguments)
        spent.append(1000 * (time.perf_counter() - start))
    return answer, min(spent)


def quadratic(seed: int) -> tuple[dict[str, Matrix], dict[str, float]]:
    """Returns the costs of all problems, and the mean milliseconds, by call."""
    rng = np.random.default_rng(seed)
    costs, spent = np.zeros((PROBLEMS, len(QUADRATIC))), np.zeros((PROBLEMS, len(QUADRATIC)))
    for problem in range(PROBLEMS):
        flow = np.where(rng.random((FACILITIES, FACILITIES)) < 0.4, rng.integers(1, 10, (FACILITIES, FACILITIES)), 0.0)
        sites = rng.random((FACILITIES, 2))
        distance = np.linalg.norm(sites[:, None] - sites[None], axis=2)
        for place, call in enumerate(QUADRATIC.values()):
            answer, spent[problem, place] = timed(call, flow, distance, np.random.default_rng(seed))
            costs[problem, place] = answer.fun
    names = list(QUADRATIC)
    return dict(zip(names, costs.T, strict=True)), dict(zip(names, spent.mean(0).tolist(), strict=True))


def linear(seed: int) -> tuple[dict[str, float], bool]:
    """Returns the milliseconds of 64 linear assignments of 100 nodes, by call, and whether both cost the same."""
    costs = np.random.default_rng(seed).random((64, 100, 100))
    batch = torch.from_numpy(costs)
    answers, theirs = timed(lambda: [linear_sum_assignment(each) for each in costs])
    result, ours = timed(lambda: gm.linear_assignment(batch))
    total = sum(float(each[answer].sum()) for each, answer in zip(costs, answers, strict=True))
    same = abs(total - float(result.objective.sum())) < 1e-6
    return {"scipy, one by one": theirs, "graphmatch, one batch": ours}, same


def affinities(seed: int) -> bool:
    """Prints what pygmtools and graphmatch score with an affinity matrix; returns whether ours is lower."""
    import pygmtools

    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(12, 2, generator=generator)
    moved = points[torch.randperm(12, generator=generator)] + 0.05 * torch.randn(12, 2, generator=generator)
    first, second = torch.cdist(points, points), torch.cdist(moved, moved)
    # How alike the edges (i, j) and (k, l) are, in pygmtools' order: (k, i), (l, j).
    alike = torch.exp(-((first[None, :, None, :] - second[:, None, :, None]) ** 2) / 0.01).reshape(1, 144, 144)

    count = torch.tensor([12])

    def relaxed() -> torch.Tensor:
        return pygmtools.hungarian(pygmtools.rrwm(alike, count, count, backend="pytorch"), backend="pytorch")

    matching, theirs = timed(relaxed)
    result, ours = timed(lambda: gm.solve(gm.io.from_affinity_matrix(alike, 12, 12)))
    scores = float(pygmtools.utils.compute_affinity_score(matching, alike, backend="pytorch")), -float(result.objective)
    print(f"affinity matrix, pygmtools rrwm:        score {scores[0]:8.2f}   {theirs:7.1f} ms")
    print(f"affinity matrix, graphmatch:            score {scores[1]:8.2f}   {ours:7.1f} ms")
    return scores[1] < scores[0] * (1 - 1e-6)


def main(output: Path, seed: int = 0, theme: str = "light") -> None:
    """Makes all calls, and draws how far their answers are from the best ones, against time."""
    costs, spent = quadratic(seed)
    best = np.min(list(costs.values()), axis=0)
    above = {name: 100 * float(np.mean(found / best - 1)) for name, found in costs.items()}
    for name, found in costs.items():
        print(f"quadratic assignment, {name + ':':<21} cost {np.mean(found):9.2f}   {spent[name]:7.1f} ms")
    milliseconds, same = linear(seed)
    for name, each in milliseconds.items():
        print(f"linear assignments, {name + ':':<38} {each:7.1f} ms")
    worse = any(above[f"graphmatch {method}"] > above[f"scipy {method}"] for method in ("faq", "2opt"))
    worse = worse or above["graphmatch portfolio"] > 0
    if importlib.util.find_spec("pygmtools") is None:
        print("affinity matrix: left out, because pygmtools is not installed")
    else:
        worse = affinities(seed) or worse
    print(f"linear assignments cost the same: {same}")
    print(f"graphmatch never finds worse: {not worse}")

    style = THEMES[theme]
    looks = {"scipy": (style.wrong, "s"), "graphmatch": (style.right, "o")}
    figure, axes = panels(theme, 12, 4.8, "AB", width_ratios=(1.25, 1))
    for name, share in above.items():
        colour, marker = looks[name.split()[0]]
        axes["A"].scatter(spent[name], share, s=170, color=colour, marker=marker, zorder=3)
        look = {"color": colour, "fontsize": 13, "ha": "center", "va": "bottom"}
        axes["A"].annotate(name.replace(" ", "\n"), (spent[name], share), (0, 9), textcoords="offset points", **look)
    axes["A"].set_xscale("log")
    axes["A"].margins(0.16, 0.25)
    axes["A"].set_ylim(bottom=-0.3)
    label_curves(axes["A"], theme, "milliseconds", "cost above the best, %", f"quadratic assignment, n = {FACILITIES}")
    names = list(milliseconds)
    axes["B"].barh(names, list(milliseconds.values()), color=[looks[name.split(",")[0]][0] for name in names])
    axes["B"].set_yticks(range(2), [name.replace(", ", "\n") for name in names])
    axes["B"].invert_yaxis()
    label_curves(axes["B"], theme, "milliseconds", "", "64 linear assignments, n = 100")
    viz.save_figure(figure, output)


if __name__ == "__main__":
    run(main)
