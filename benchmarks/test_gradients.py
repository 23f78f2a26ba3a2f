"""Gradients through the matching: one training step's six problems, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import graphmatch as gm
from benchmarks.cases import exgra_batch

_ESTIMATORS: dict[str, gm.GradientEstimator] = {"BlackBox": gm.BlackBox(), "IMLE": gm.IMLE(step=3.0)}


@pytest.mark.benchmark(group="gradients")
@pytest.mark.parametrize("nodes", [16, 64])
@pytest.mark.parametrize("estimator", _ESTIMATORS)
def test_gradients(benchmark: Any, estimator: str, nodes: int):
    unary, quadratic, edges1, edges2 = exgra_batch(nodes, noise=0.3, seeds=range(6), dtype=torch.float32)
    unary.requires_grad_()
    quadratic.requires_grad_()
    layer = gm.MatchingLayer(gm.DualAscent(max_gap=1e-4, threads=1), _ESTIMATORS[estimator])
    # A random target, so that every problem sends a gradient.
    target = torch.eye(nodes)[torch.randperm(nodes, generator=torch.Generator().manual_seed(0))]

    def step() -> float:
        unary.grad = quadratic.grad = None
        matching, _ = layer(unary, quadratic, edges1, edges2)
        loss = gm.hamming_loss(matching, target)
        loss.backward()
        return loss.item()

    loss = benchmark.pedantic(step, rounds=9, warmup_rounds=2)
    gap = layer.result.gap
    benchmark.extra_info |= {
        "estimator": estimator,
        "nodes": nodes,
        "batch": len(unary),
        "loss": loss,
        "objective": layer.result.objective.mean().item(),
        "lower_bound": layer.result.lower_bound.mean().item(),
        "gap": gap.max().item(),
        "certified": (gap <= 1e-4).double().mean().item(),
        "nonzero_gradient": (unary.grad.abs().flatten(1).amax(1) > 0).double().mean().item(),
    }
