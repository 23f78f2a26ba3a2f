"""How the growth suite makes work of a given size, for every group of benchmarks."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import graphmatch as gm
from benchmarks.cases import clustered_views, dense_instance, exgra_batch
from benchmarks.multigraph_cases import planted_case

Quality = dict[str, float | None]
THREADS = "threads"


@dataclass(frozen=True)
class Work:
    """Something to time, and how good its answer is."""

    run: Callable[[], Any]
    judge: Callable[[Any], Quality]


@dataclass(frozen=True)
class Sweep:
    """Work along one axis, all else fixed.

    Attributes:
        group: The group of benchmarks that it belongs to.
        axis: What grows.
        values: Its values, growing.
        fixed: What does not grow, in words.
        make: Builds the work of a value. Where threads grow, all values are the same work.
    """

    group: str
    axis: str
    values: tuple[int, ...]
    fixed: str
    make: Callable[[int], Work]


def thread_counts() -> tuple[int, ...]:
    """Returns 1, 2, 4 ... up to the cores of the machine."""
    cores = os.cpu_count() or 1
    return tuple(2**power for power in range(cores.bit_length()) if 2**power <= cores)


def _matched(result: gm.MatchResult) -> Quality:
    return {"objective": result.objective.mean().item(), "gap": result.gap.max().item()}


def _lap(nodes: int, batch: int) -> Work:
    generator = torch.Generator().manual_seed(nodes)
    problem = gm.LinearProblem(torch.rand(batch, nodes, nodes, generator=generator, dtype=torch.float64))
    return Work(lambda: gm.solve(problem), _matched)


def _sparse(nodes: int, batch: int, noise: float = 0.3) -> Work:
    tensors = exgra_batch(nodes, noise, range(batch), torch.float32)
    problem = gm.LawlerProblem(*tensors, unmatched_cost=0.0)
    solver = gm.Portfolio(max_gap=1e-4)
    return Work(lambda: gm.solve(problem, solver), _matched)


def _dense(solver: gm.Solver, nodes: int, batch: int) -> Work:
    instances = [dense_instance("uniform", nodes, seed) for seed in range(batch)]
    flow, distance = (
        torch.from_numpy(np.stack([getattr(each, name) for each in instances])) for name in ("flow", "distance")
    )
    problem = gm.KoopmansBeckmannProblem(flow, distance)
    return Work(lambda: gm.solve(problem, solver), _matched)


def _gradients(nodes: int, batch: int, samples: int) -> Work:
    unary, quadratic, edges1, edges2 = exgra_batch(nodes, 0.3, range(batch), torch.float32)
    unary.requires_grad_()
    quadratic.requires_grad_()
    layer = gm.MatchingLayer(
        gm.BarycenterAlignment(dim=1).layer.solver,
        gm.IMLE(samples=samples, step=3.0, noise_scale=0.3),
        unmatched_cost=0.0,
    )
    target = torch.eye(nodes)

    def step() -> gm.MatchResult:
        unary.grad = quadratic.grad = None
        gm.hamming_loss(layer(unary, quadratic, edges1, edges2)[0], target).backward()
        return layer.result

    return Work(step, _matched)


def _multigraph(graphs: int, nodes: int) -> Work:
    problem = planted_case(graphs, 0, nodes).problem()
    return Work(lambda: gm.solve_multigraph(problem), lambda result: {"objective": result.objective, "gap": result.gap})


def _alignment_step(nodes: int, dim: int) -> Work:
    torch.manual_seed(0)
    views = clustered_views(3, nodes, dim, noise=0.5, seed=nodes)
    alignment = gm.BarycenterAlignment(dim)

    def step() -> gm.AlignmentDetails:
        alignment.zero_grad()
        for view in views:
            view.grad = None
        details = alignment.details(*views)
        details.loss.backward()
        return details

    return Work(step, lambda details: {"objective": details.loss.item(), "gap": details.gap.item()})


def _training_step(samples: int) -> Work:
    # transformers is slow to import, and only this needs it.
    from benchmarks.training_cases import CASES, StepRunner

    runner = StepRunner(CASES["barycenter"], samples, size=1)
    return Work(runner.step, lambda loss: {"objective": loss})


def sweeps() -> list[Sweep]:
    """Returns all sweeps, group by group."""
    threads = thread_counts()
    faq, portfolio = gm.FAQ(starts=10), gm.Portfolio(effort=0.1)
    dense = "qap-dense"
    return [
        Sweep("lap", "n", (32, 64, 128, 256, 512, 1024), "batch 4", lambda n: _lap(n, 4)),
        Sweep("lap", "batch", (8, 32, 128, 512, 2048), "n = 64", lambda b: _lap(64, b)),
        Sweep("lap", THREADS, threads, "n = 256, batch 64", lambda _: _lap(256, 64)),
        Sweep("qap-sparse", "n", (8, 16, 32, 64, 128), "noise 0.3, batch 8", lambda n: _sparse(n, 8)),
        Sweep("qap-sparse, noise 1", "n", (8, 16, 32, 64), "batch 8", lambda n: _sparse(n, 8, 1.0)),
        Sweep("qap-sparse", "batch", (8, 32, 128, 512, 2048), "n = 16, noise 0.3", lambda b: _sparse(16, b)),
        Sweep("qap-sparse", THREADS, threads, "n = 16, noise 0.3, batch 2048", lambda _: _sparse(16, 2048)),
        Sweep(f"{dense}, FAQ", "n", (16, 32, 64, 128, 256), "10 starts, batch 1", lambda n: _dense(faq, n, 1)),
        Sweep(f"{dense}, FAQ", "batch", (1, 4, 16, 64), "10 starts, n = 32", lambda b: _dense(faq, 32, b)),
        Sweep(f"{dense}, Portfolio", "n", (16, 24, 32, 48, 64), "effort 0.1", lambda n: _dense(portfolio, n, 1)),
        Sweep(
            f"{dense}, Portfolio", THREADS, threads, "effort 0.1, n = 32, batch 8", lambda _: _dense(portfolio, 32, 8)
        ),
        Sweep("gradients", "n", (8, 16, 32, 64), "batch 6, 1 sample", lambda n: _gradients(n, 6, 1)),
        Sweep("gradients", "batch", (6, 24, 96, 384), "n = 16, 1 sample", lambda b: _gradients(16, b, 1)),
        Sweep("gradients", "samples", (1, 4, 16, 64, 256), "n = 16, batch 6", lambda s: _gradients(16, 6, s)),
        Sweep("gradients", THREADS, threads, "n = 16, batch 6, 64 samples", lambda _: _gradients(16, 6, 64)),
        Sweep("multigraph", "graphs", (4, 8, 16, 24, 32), "n = 16", lambda m: _multigraph(m, 16)),
        Sweep("multigraph", "n", (8, 16, 24, 32), "6 graphs", lambda n: _multigraph(6, n)),
        Sweep("multigraph", THREADS, threads, "n = 16, 16 graphs", lambda _: _multigraph(16, 16)),
        Sweep("alignment-step", "n", (16, 32, 64, 128), "3 views, d = 64", lambda n: _alignment_step(n, 64)),
        Sweep("alignment-step", "d", (64, 128, 256, 512, 1024), "3 views, n = 32", lambda d: _alignment_step(32, d)),
        Sweep("alignment-step", THREADS, threads, "3 views, n = 64, d = 256", lambda _: _alignment_step(64, 256)),
        Sweep("training-step", "samples", (4, 8, 16, 32, 64), "tiny model, stage 2", _training_step),
        Sweep("training-step", THREADS, threads, "tiny model, stage 2, 32 samples", lambda _: _training_step(32)),
    ]
