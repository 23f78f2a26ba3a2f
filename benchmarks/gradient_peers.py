"""PyEPO's estimators on the problems of the gradient suite, around graphmatch's solver."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import graphmatch as gm

# Its name for the same estimator, the step that the suite gives ours, and its other options.
PYEPO: dict[str, tuple[str, float, dict[str, Any]]] = {
    "BlackBox": ("blackboxOpt", 1.0, {}),
    "IMLE": ("implicitMLE", 3.0, {"n_samples": 1, "sigma": 0.3, "two_sides": True}),
}


class PyEPOMatching:
    """What `MatchingLayer` does, by PyEPO: one model per problem, and one call of its solver per problem and sample.

    Args:
        estimator: A key of `PYEPO`.
        solver: Solves every problem.
        edges1: (b, e1, 2) int64; problems with other edges are other models.
        edges2: (b, e2, 2) int64.
        nodes: Of both graphs.
        peak: The largest entry of the gradient that comes from above. Our step is the most by which a cost is moved;
            its lambda multiplies that gradient.
    """

    def __init__(
        self, estimator: str, solver: gm.Solver, edges1: Tensor, edges2: Tensor, nodes: int, peak: float
    ) -> None:
        self.shapes = ((nodes, nodes), (edges1.shape[1], edges2.shape[1]))
        self.count = nodes * nodes
        name, step, options = PYEPO[estimator]
        make = getattr(importlib.import_module("pyepo.func"), name)
        self.models = [self._model(solver, *edges) for edges in zip(edges1, edges2, strict=True)]
        self.modules: list[nn.Module | Callable[[Tensor], Tensor]] = [
            make(model, lambd=step / peak, **options) for model in self.models
        ]

    def _model(self, solver: gm.Solver, edges1: Tensor, edges2: Tensor) -> Any:
        opt_model = importlib.import_module("pyepo.model.opt").optModel
        count, (nodes, edges) = self.count, self.shapes

        class Matching(opt_model):
            def _getModel(self) -> tuple[None, range]:  # noqa: N802
                return None, range(count + edges[0] * edges[1])

            def setObj(self, c: Any) -> None:  # noqa: N802
                costs = torch.as_tensor(np.asarray(c), dtype=torch.float32)
                parts = costs[:count].reshape(1, *nodes), costs[count:].reshape(1, *edges)
                self.problem = gm.LawlerProblem(*parts, edges1, edges2, unmatched_cost=0.0)

            def solve(self) -> tuple[np.ndarray, float]:
                self.result = gm.solve(self.problem, solver)
                chosen = torch.cat([self.result.matching.flatten(), self.result.paid_pairs.flatten()])
                return chosen.numpy(), self.result.objective.item()

        return Matching()

    def __call__(self, unary: Tensor, quadratic: Tensor) -> Tensor:
        """Returns matchings (b, n, n), differentiable in both costs."""
        costs = _joined(unary, quadratic)
        chosen = [module(costs[place : place + 1]) for place, module in enumerate(self.modules)]
        return torch.cat(chosen)[:, : self.count].reshape(-1, *self.shapes[0])

    def solve(self, unary: Tensor, quadratic: Tensor) -> list[gm.MatchResult]:
        """Returns what the models' solver finds without noise."""
        for model, costs in zip(self.models, _joined(unary, quadratic).detach(), strict=True):
            model.setObj(costs)
            model.solve()
        return [model.result for model in self.models]


def _joined(unary: Tensor, quadratic: Tensor) -> Tensor:
    return torch.cat([unary.flatten(1), quadratic.flatten(1)], dim=1)
