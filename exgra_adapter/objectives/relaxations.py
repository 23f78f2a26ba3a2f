"""What solves the matching problems of an alignment in training, and what estimates their gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import graphmatch as gm
from exgra_adapter.objectives.base import check_option

# Sizes are in units of the costs, which are cosines.
_GRADIENTS: dict[str, tuple[type, dict[str, Any]]] = {
    "imle": (gm.IMLE, {"step": 3.0, "noise_scale": 0.3, "samples": 1}),
    "adaptive_imle": (gm.AdaptiveIMLE, {"step": 3.0, "noise_scale": 0.3, "samples": 1, "wanted_changes": 4.0}),
    "blackbox": (gm.BlackBox, {"step": 0.5}),
    "perturbed": (gm.PerturbedOptimizer, {"noise_scale": 0.3, "samples": 64, "perturb": "unary"}),
    "fenchel_young": (gm.FenchelYoung, {"noise_scale": 0.3, "samples": 1, "perturb": "unary"}),
    "negative_identity": (gm.NegativeIdentity, {"normalise": True}),
    "straight_through": (gm.StraightThroughSinkhorn, {"temperature": 0.1}),
}
_SOLVERS: dict[str, type] = {"spectral": gm.SpectralMatching, "rrwm": gm.RRWM, "ipfp": gm.IPFP}
_CONVERGENCE: dict[str, Any] = {"max_iterations": 200, "tolerance": 1e-4}
_SOFT: dict[str, tuple[type, dict[str, Any]]] = {
    "sinkhorn": (gm.Sinkhorn, {"temperature": 0.3}),
    "gumbel_sinkhorn": (gm.GumbelSinkhorn, {"temperature": 0.3, "noise_scale": 0.1, "samples": 1}),
}
GRADIENTS = tuple(_GRADIENTS)
RELAXATIONS = ("none", *_SOLVERS, *_SOFT)


class SoftMatching(nn.Module):
    """Takes the place of `graphmatch.MatchingLayer` in an alignment: soft matchings with their own exact gradient.

    Starts from the entropic assignment of the unary costs alone; then, `steps` times, from the unary costs plus the
    slopes of the quadratic ones at the matching before. Every step is differentiated. With noise, that is Gumbel noise
    on the costs in training, another one in each call, and the mean over the samples; none in evaluation.

    Args:
        sinkhorn: The entropic assignment.
        steps: Linearisations of the quadratic costs; each is one more assignment.
    """

    calls: Tensor
    result: None = None  # soft matchings have no certificate
    unmatched_cost: None = None

    def __init__(self, sinkhorn: gm.Sinkhorn, steps: int = 1) -> None:
        super().__init__()
        self.sinkhorn, self.steps = sinkhorn, steps
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(
        self, unary: Tensor, quadratic: Tensor, edges1: Tensor, edges2: Tensor, sizes: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns soft matchings `(b, n1, n2)` and the products of their entries at the ends of edges, `(b, e1, e2)`.

        Args:
            unary: `(b, n1, n2)` float32 or float64.
            quadratic: `(b, e1, e2)`.
            edges1: `(b, e1, 2)` int64.
            edges2: `(b, e2, 2)`.
            sizes: None; whole graphs only.
        """
        key = self.calls.clone()
        if self.training:
            self.calls += 1
        matching = self._assigned(unary, key)
        tails, heads = (_entries(matching, edges1[..., end], edges2[..., end]) for end in (0, 1))
        for _ in range(self.steps):
            slopes = _scattered(quadratic * heads, edges1[..., 0], edges2[..., 0], unary)
            slopes = slopes + _scattered(quadratic * tails, edges1[..., 1], edges2[..., 1], unary)
            matching = self._assigned(unary + slopes, key)
            tails, heads = (_entries(matching, edges1[..., end], edges2[..., end]) for end in (0, 1))
        return matching, tails * heads

    def _assigned(self, costs: Tensor, key: Tensor) -> Tensor:
        if not isinstance(self.sinkhorn, gm.GumbelSinkhorn):
            return self.sinkhorn(costs)
        if self.training:
            return self.sinkhorn(costs, key=key)
        return gm.Sinkhorn(self.sinkhorn.temperature, **_CONVERGENCE)(costs)


class RecordedProblems(gm.MatchingLayer):
    """Takes the place of `graphmatch.MatchingLayer` in an alignment: keeps the problems, for a loss on their costs.

    Attributes:
        problems: unary costs, quadratic costs, edges1 and edges2 of the last call; None once they were taken.
    """

    problems: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def forward(  # type: ignore[override]
        self, unary: Tensor, quadratic: Tensor, edges1: Tensor, edges2: Tensor, sizes: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Keeps the problems and returns empty matchings."""
        self.problems = (unary, quadratic, edges1, edges2)
        return torch.zeros_like(unary), torch.zeros_like(quadratic)

    def take(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns the problems of the last call, and forgets them."""
        problems, self.problems = self.problems, None
        if problems is None:
            raise ValueError("take: problems must have been recorded; got none. Run the alignment first.")
        return problems


def matching_parts(
    where: str, relaxation: str, gradient: str | None, seed: int, **options: float | None
) -> tuple[gm.Solver | None, gm.GradientEstimator | None, nn.Module | None]:
    """Returns the solver and the gradient estimator of an alignment, None = its own, and a layer in place of its own.

    Args:
        where: Whose options these are, for messages.
        relaxation: One of `RELAXATIONS`.
        gradient: One of `GRADIENTS`; None: imle, or what the relaxation brings.
        seed: Of the noise.
        **options: `samples`, `noise_scale` and `temperature`; None = the default.

    Raises:
        ValueError: A name is unknown, or an option has no use here.
    """
    check_option(
        where, "relaxation", relaxation, relaxation in RELAXATIONS, f"be one of {', '.join(RELAXATIONS)}", "Pick one."
    )
    known = gradient is None or gradient in _GRADIENTS
    check_option(where, "gradient", gradient, known, f"be one of {', '.join(GRADIENTS)}", "Or leave it out for imle.")
    given = {name: value for name, value in options.items() if value is not None}
    if relaxation in _SOFT:
        check_option(
            where, "gradient", gradient, gradient is None, f"be left out with relaxation {relaxation}",
            "A soft matching has a gradient of its own.",
        )  # fmt: skip
        kind, defaults = _SOFT[relaxation]
        settings = _merged(where, relaxation, defaults, given) | _CONVERGENCE
        return None, None, SoftMatching(kind(**settings, **({"seed": seed} if "samples" in defaults else {})))
    solver = None if relaxation == "none" else _SOLVERS[relaxation](on_cpu=True)
    name = "imle" if gradient is None else gradient
    kind, defaults = _GRADIENTS[name]
    settings = _merged(where, name, defaults, given)
    estimator: gm.GradientEstimator = kind(**settings, **({"seed": seed} if "samples" in defaults else {}))
    if not isinstance(estimator, gm.FenchelYoung):
        return solver, estimator, None
    return solver, estimator, RecordedProblems(solver, estimator)


def _merged(where: str, name: str, defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    for option, value in given.items():
        if option not in defaults:
            takers = [each for each, (_, own) in (_GRADIENTS | _SOFT).items() if option in own]
            rule = f"be left out with {name}, which has none"
            check_option(where, option, value, False, rule, f"It belongs to {', '.join(takers)}.")
    return defaults | given


def _entries(matching: Tensor, nodes1: Tensor, nodes2: Tensor) -> Tensor:
    """Returns matching[nodes1[e], nodes2[f]], `(b, e1, e2)`."""
    rows = matching.gather(1, nodes1[:, :, None].expand(-1, -1, matching.shape[2]))
    return rows.gather(2, nodes2[:, None, :].expand(-1, rows.shape[1], -1))


def _scattered(pairs: Tensor, nodes1: Tensor, nodes2: Tensor, like: Tensor) -> Tensor:
    """Returns the sums of pairs `(b, e1, e2)` at [nodes1[e], nodes2[f]], shaped as `like`."""
    rows = pairs.new_zeros(len(like), like.shape[1], pairs.shape[2])
    rows = rows.scatter_add(1, nodes1[:, :, None].expand_as(pairs), pairs)
    return torch.zeros_like(like).scatter_add(2, nodes2[:, None, :].expand_as(rows), rows)
