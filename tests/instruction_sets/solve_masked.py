"""Solves fixed problems with some instruction sets hidden from the native core, and prints the answers as JSON.

python solve_masked.py MASK PROBE BITS    MASK, PROBE: two copies of masked_cpuid.cpp, compiled; BITS: to hide
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any

import torch
from torch import Tensor

mask = ctypes.CDLL(sys.argv[1])
mask.hide_features.restype = ctypes.c_bool
hidden = mask.hide_features(int(sys.argv[3]))
probe = ctypes.CDLL(sys.argv[2])
import graphmatch as gm  # noqa: E402  (its module is to be loaded between these lines, and PyTorch before them)

mask.show_features()
assert "graphmatch._native_cpu" in sys.modules, "the native core was loaded later, with every instruction set in sight"

INF = torch.inf


def exact(value: Tensor) -> Any:
    """The numbers of a tensor, floats without rounding."""
    return [number.hex() if isinstance(number, float) else number for number in value.detach().flatten().tolist()]


def costs(generator: torch.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normal random costs."""
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def linear(rows: int, columns: int, dtype: torch.dtype, unmatched: float | None) -> gm.Problem:
    """Linear problems, a tenth of whose pairs are forbidden where nodes may stay unmatched."""
    generator = torch.Generator().manual_seed(rows)
    values = costs(generator, 3, rows, columns, dtype=dtype)
    if unmatched is not None:
        values = values.masked_fill(torch.rand(values.shape, generator=generator) < 0.1, INF)
    return gm.LinearProblem(values, None, unmatched)


def lawler(nodes: int, edges: int, dtype: torch.dtype, unmatched: float | None) -> gm.Problem:
    """Sparse problems: the widths of their rows lie on both sides of the registers' widths."""
    generator = torch.Generator().manual_seed(nodes)
    ends = [torch.stack([torch.randperm(nodes, generator=generator)[:2] for _ in range(edges)]) for _ in range(2)]
    tables = costs(generator, 2, nodes, nodes, dtype=dtype), costs(generator, 2, edges, edges, dtype=dtype)
    return gm.LawlerProblem(*tables, *(end.expand(2, -1, -1) for end in ends), None, unmatched)


def dense(nodes: int, dtype: torch.dtype) -> gm.Problem:
    """Dense problems."""
    generator = torch.Generator().manual_seed(nodes)
    return gm.KoopmansBeckmannProblem(*(costs(generator, 2, nodes, nodes, dtype=dtype) for _ in range(3)))


def solved() -> dict[str, Any]:
    """The answers of every native solver; none of them watches a clock."""
    single, double = torch.float32, torch.float64
    tasks: list[tuple[gm.Problem, gm.Solver]] = [
        (linear(size, size + extra, dtype, unmatched), gm.LAP())
        for size, extra in ((3, 0), (9, 2), (17, 0), (40, 25))
        for dtype in (single, double)
        for unmatched in (None, -0.25)
    ]
    for size, edges, unmatched in ((6, 9, None), (11, 24, 0.1), (19, 40, None), (37, 60, -0.3)):
        problem = lawler(size, edges, single if size % 2 else double, unmatched)
        solvers = [gm.DualAscent(max_iterations=60), gm.Tabu(steps=60, restarts=2), gm.Fusion(generations=6)]
        tasks += [(problem, solver) for solver in solvers]
    # Many columns and few edges: the dual ascent keeps lists of costs instead of tables.
    tasks.append((lawler(110, 40, single, 0.1), gm.DualAscent(max_iterations=20)))
    tasks += [(lawler(size, 4 * size, single, None), gm.BranchAndBound()) for size in (7, 9)]
    for size, dtype in ((7, double), (18, single), (35, double)):
        solvers = [gm.DualAscent(max_iterations=10), gm.Tabu(steps=80, restarts=2), gm.FAQ(starts=2, refine=True)]
        tasks += [(dense(size, dtype), solver) for solver in solvers]
    answers = {}
    for number, (problem, solver) in enumerate(tasks):
        result = gm.solve(problem, solver)
        parts = (result.objective, result.lower_bound, result.assignment, result.iterations)
        answers[f"{number}: {type(solver).__name__}, {type(problem).__name__}"] = [exact(part) for part in parts]
    return answers


def gradients() -> dict[str, Any]:
    """Gradients through noise of every kind and coupling."""
    answers = {}
    for noise, coupling in (("gumbel", "independent"), ("gaussian", "antithetic"), ("gaussian", "orthogonal")):
        for size, dtype in ((9, torch.float32), (13, torch.float64)):
            values = costs(torch.Generator().manual_seed(size), 3, size, size, dtype=dtype).requires_grad_()
            estimator = gm.IMLE(samples=8, noise=noise, coupling=coupling, seed=3)
            matching = gm.MatchingLayer(solver=gm.LAP(), gradient=estimator)(values)
            (matching * torch.arange(matching.numel()).view_as(matching)).sum().backward()
            answers[f"{noise}, {coupling}, {dtype}"] = [exact(matching), exact(values.grad)]
    return answers


answers = {"gradients": gradients(), "solutions": solved()}
sys.stdout.write(json.dumps({"hidden": hidden, "register_bits": probe.register_bits(), "answers": answers}))
