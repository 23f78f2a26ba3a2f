"""Gradients through the matching: one training step's six problems, forward and backward, float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import graphmatch as gm
from benchmarks.cases import exgra_batch
from benchmarks.gradient_peers import PYEPO, PyEPOMatching
from benchmarks.peers import installed
from benchmarks.timing import torch_threads

_THREADS = 2
_ESTIMATORS: dict[str, gm.GradientEstimator] = {"BlackBox": gm.BlackBox(), "IMLE": gm.IMLE(step=3.0, noise_scale=0.3)}
_SOLVERS: dict[str, gm.Solver] = {
    "thorough": gm.Portfolio(max_gap=1e-4),
    "quick": gm.BarycenterAlignment(dim=1).layer.solver,
}


Match = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _costs(nodes: int, noise: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns costs that ask for gradients, and the edges."""
    unary, quadratic, edges1, edges2 = exgra_batch(nodes, noise, range(6), torch.float32)
    return unary.requires_grad_(), quadratic.requires_grad_(), edges1, edges2


def _step(match: Match, unary: torch.Tensor, quadratic: torch.Tensor) -> Callable[[], float]:
    """Returns one training step, which leaves gradients at the costs."""
    target = torch.eye(unary.shape[1])

    def step() -> float:
        unary.grad = quadratic.grad = None
        loss = gm.hamming_loss(match(unary, quadratic), target)
        loss.backward()
        return loss.item()

    return step


def _peak(unary: torch.Tensor) -> float:
    """The largest entry of the loss's gradient in the matchings, the same everywhere: the loss is linear in them."""
    matching = torch.zeros_like(unary, requires_grad=True)
    gm.hamming_loss(matching, torch.eye(unary.shape[1])).backward()
    return matching.grad.abs().max().item()


def _share_with_gradient(unary: torch.Tensor) -> float:
    return (unary.grad.abs().flatten(1).amax(1) > 0).double().mean().item()


@pytest.mark.benchmark(group="gradients")
@pytest.mark.parametrize("nodes", [16, 64])
@pytest.mark.parametrize("noise", [0.3, 1.0])
@pytest.mark.parametrize("solver", _SOLVERS)
@pytest.mark.parametrize("estimator", _ESTIMATORS)
def test_gradients(benchmark: Any, estimator: str, solver: str, noise: float, nodes: int):
    layer = gm.MatchingLayer(_SOLVERS[solver], _ESTIMATORS[estimator], unmatched_cost=0.0)
    unary, quadratic, edges1, edges2 = _costs(nodes, noise)
    step = _step(lambda *costs: layer(*costs, edges1, edges2)[0], unary, quadratic)
    with torch_threads(_THREADS):
        loss = benchmark.pedantic(step, rounds=25, warmup_rounds=5)
    gap = layer.result.gap
    benchmark.extra_info |= {
        "estimator": estimator,
        "solver": solver,
        "noise": noise,
        "nodes": nodes,
        "batch": len(unary),
        "package": "graphmatch",
        "loss": loss,
        "objective": layer.result.objective.mean().item(),
        "lower_bound": layer.result.lower_bound.mean().item(),
        "gap": gap.max().item(),
        "certified": (gap <= 1e-4).double().mean().item(),
        "nonzero_gradient": _share_with_gradient(unary),
    }


@pytest.mark.skipif(not installed("pyepo"), reason="pyepo is not installed")
@pytest.mark.benchmark(group="gradients")
@pytest.mark.parametrize("nodes", [16, 64])
@pytest.mark.parametrize("noise", [0.3, 1.0])
@pytest.mark.parametrize("estimator", PYEPO)
def test_pyepo(benchmark: Any, estimator: str, noise: float, nodes: int):
    """The same estimators by PyEPO, with its noise, around the quick solver."""
    unary, quadratic, edges1, edges2 = _costs(nodes, noise)
    match = PyEPOMatching(estimator, _SOLVERS["quick"], edges1, edges2, nodes, _peak(unary))
    step = _step(match, unary, quadratic)
    with torch_threads(_THREADS):
        loss = benchmark.pedantic(step, rounds=5, warmup_rounds=1)
        results = match.solve(unary, quadratic)
    gap = torch.cat([result.gap for result in results])
    benchmark.extra_info |= {
        "estimator": estimator,
        "solver": "quick",
        "noise": noise,
        "nodes": nodes,
        "batch": len(unary),
        "package": "pyepo",
        "loss": loss,
        "objective": torch.cat([result.objective for result in results]).mean().item(),
        "gap": gap.max().item(),
        "certified": (gap <= 1e-4).double().mean().item(),
        "nonzero_gradient": _share_with_gradient(unary),
    }


@pytest.mark.benchmark(group="gradients-samples")
@pytest.mark.parametrize("samples", [1, 4, 16, 64])
@pytest.mark.parametrize("noise", [0.3, 1.0])
@pytest.mark.parametrize("solver", _SOLVERS)
def test_samples(benchmark: Any, solver: str, noise: float, samples: int):
    estimator = gm.IMLE(samples=samples, step=3.0, noise_scale=0.3)
    layer = gm.MatchingLayer(_SOLVERS[solver], estimator, unmatched_cost=0.0)
    unary, quadratic, edges1, edges2 = _costs(16, noise)
    step = _step(lambda *costs: layer(*costs, edges1, edges2)[0], unary, quadratic)
    with torch_threads(1):
        benchmark.pedantic(step, rounds=25 if samples < 64 else 9, warmup_rounds=3)
    gaps = torch.cat([each.gap.flatten() for each in (layer.samples, layer.targets)])
    benchmark.extra_info |= {
        "solver": solver,
        "noise": noise,
        "nodes": 16,
        "batch": len(unary),
        "samples": samples,
        "gap": gaps.max().item(),
        "certified": (gaps <= 1e-4).double().mean().item(),
    }
