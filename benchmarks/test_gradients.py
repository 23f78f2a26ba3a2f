"""Gradients through the matching: one training step's six problems, forward and backward, float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import graphmatch as gm
from benchmarks.cases import exgra_batch
from benchmarks.timing import torch_threads

_THREADS = 2
_ESTIMATORS: dict[str, gm.GradientEstimator] = {"BlackBox": gm.BlackBox(), "IMLE": gm.IMLE(step=3.0, noise_scale=0.3)}
_SOLVERS: dict[str, gm.Solver] = {
    "thorough": gm.Portfolio(max_gap=1e-4),
    "quick": gm.BarycenterAlignment(dim=1).layer.solver,
}


def _step(layer: gm.MatchingLayer, nodes: int, noise: float) -> tuple[Callable[[], float], torch.Tensor]:
    """Returns one training step of a layer, and the costs whose gradient it leaves behind."""
    unary, quadratic, edges1, edges2 = exgra_batch(nodes, noise, range(6), torch.float32)
    unary.requires_grad_()
    quadratic.requires_grad_()
    target = torch.eye(nodes)

    def step() -> float:
        unary.grad = quadratic.grad = None
        matching, _ = layer(unary, quadratic, edges1, edges2)
        loss = gm.hamming_loss(matching, target)
        loss.backward()
        return loss.item()

    return step, unary


@pytest.mark.benchmark(group="gradients")
@pytest.mark.parametrize("nodes", [16, 64])
@pytest.mark.parametrize("noise", [0.3, 1.0])
@pytest.mark.parametrize("solver", _SOLVERS)
@pytest.mark.parametrize("estimator", _ESTIMATORS)
def test_gradients(benchmark: Any, estimator: str, solver: str, noise: float, nodes: int):
    layer = gm.MatchingLayer(_SOLVERS[solver], _ESTIMATORS[estimator], unmatched_cost=0.0)
    step, unary = _step(layer, nodes, noise)
    with torch_threads(_THREADS):
        loss = benchmark.pedantic(step, rounds=25, warmup_rounds=5)
    gap = layer.result.gap
    benchmark.extra_info |= {
        "estimator": estimator,
        "solver": solver,
        "noise": noise,
        "nodes": nodes,
        "batch": len(unary),
        "step_threads": _THREADS,
        "loss": loss,
        "objective": layer.result.objective.mean().item(),
        "lower_bound": layer.result.lower_bound.mean().item(),
        "gap": gap.max().item(),
        "certified": (gap <= 1e-4).double().mean().item(),
        "nonzero_gradient": (unary.grad.abs().flatten(1).amax(1) > 0).double().mean().item(),
    }


@pytest.mark.benchmark(group="gradients-samples")
@pytest.mark.parametrize("samples", [1, 4, 16, 64])
@pytest.mark.parametrize("noise", [0.3, 1.0])
@pytest.mark.parametrize("solver", _SOLVERS)
def test_samples(benchmark: Any, solver: str, noise: float, samples: int):
    estimator = gm.IMLE(samples=samples, step=3.0, noise_scale=0.3)
    layer = gm.MatchingLayer(_SOLVERS[solver], estimator, unmatched_cost=0.0)
    step, unary = _step(layer, 16, noise)
    with torch_threads(1):
        benchmark.pedantic(step, rounds=25 if samples < 64 else 9, warmup_rounds=3)
    gaps = torch.cat([each.gap.flatten() for each in (layer.samples, layer.targets)])
    benchmark.extra_info |= {
        "solver": solver,
        "noise": noise,
        "nodes": 16,
        "batch": len(unary),
        "samples": samples,
        "step_threads": 1,
        "gap": gaps.max().item(),
        "certified": (gaps <= 1e-4).double().mean().item(),
    }
