"""The alignment loss as training calls it: three views, forward and backward, on two threads, and the released one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import graphmatch as gm
from benchmarks.cases import clustered_views
from benchmarks.timing import torch_threads

_THREADS = 2


@pytest.mark.benchmark(group="alignment-step")
@pytest.mark.parametrize("nodes", [16, 64])
@pytest.mark.parametrize("dim", [64, 1024])
@pytest.mark.parametrize("recipe", ["default", "legacy"])
def test_alignment_step(benchmark: Any, recipe: str, nodes: int, dim: int):
    torch.manual_seed(0)
    views = clustered_views(3, nodes, dim, noise=0.5, seed=nodes)
    alignment = gm.BarycenterAlignment(dim, legacy=recipe == "legacy")

    def step() -> gm.AlignmentDetails:
        alignment.zero_grad()
        for view in views:
            view.grad = None
        details = alignment.details(*views)
        details.loss.backward()
        return details

    with torch_threads(_THREADS):
        details = benchmark.pedantic(step, rounds=15, warmup_rounds=3)
    benchmark.extra_info |= {
        "recipe": recipe,
        "nodes": nodes,
        "dim": dim,
        "objective": details.loss.item(),
        "matching_accuracy": details.matching_accuracy.item(),
        "gap": details.gap.item(),
        "zero_gradient": bool(alignment.zero_gradient),
    }
