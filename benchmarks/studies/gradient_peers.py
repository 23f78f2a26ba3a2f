"""PyEPO's estimators on the problem of the gradient study, by the real package."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphmatch.studies.peers import pyepo_peers
from graphmatch.studies.problems import StudyProblem

SEED = 188


def peer_gradient(name: str, scale: float) -> Tensor:
    """Returns (d,), one estimate of the gradient of a loss times `scale`, on the problem of the study."""
    problem = StudyProblem.random(SEED, 2)
    scaled = replace(problem, upstream=scale * problem.upstream)
    peer = next(each for each in pyepo_peers() if each.name == name)
    return peer.estimates(scaled, 16, 1, SEED)[0].double()


def fenchel_young(problem: StudyProblem, target: Tensor, samples: int, repetitions: int, seed: int) -> Tensor:
    """Returns (repetitions, d) gradients of PyEPO's perturbed Fenchel-Young loss with normal noise."""
    from pyepo import func

    module = func.perturbedFenchelYoung(_model(problem), n_samples=samples, sigma=1.0, seed=seed, reduction="sum")
    costs = problem.costs.expand(repetitions, -1).clone().requires_grad_()
    loss = module(costs, target.expand(repetitions, -1))
    return torch.autograd.grad(loss, costs)[0]


def _model(problem: StudyProblem) -> Any:
    """Returns PyEPO's model of the problem; its solver enumerates."""
    from pyepo.model.opt import optModel

    vertices = problem.problem.vertices.numpy()

    class Enumeration(optModel):
        def _getModel(self) -> tuple[None, range]:  # noqa: N802
            return None, range(vertices.shape[1])

        def setObj(self, c: Any) -> None:  # noqa: N802
            self.objectives = vertices @ np.asarray(c)

        def solve(self) -> tuple[np.ndarray, float]:
            best = int(self.objectives.argmin())
            return vertices[best], float(self.objectives[best])

    return Enumeration()
