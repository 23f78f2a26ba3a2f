"""Whether the gradient of s times a loss is s times its gradient, in float32 and under autocast."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

import graphmatch as gm
from benchmarks.studies.gradient_peers import peer_gradient

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SCALES = (1e-3, 1.0, 65536.0)
_BATCH, _NODES, _NEIGHBOURS, _FEATURES = 8, 8, 3, 16
_NOISE: dict[str, Any] = {"samples": 16, "noise_scale": 0.3}

ESTIMATORS: dict[str, gm.GradientEstimator] = {
    "BlackBox": gm.BlackBox(),
    "IMLE": gm.IMLE(**_NOISE),
    "AdaptiveIMLE": gm.AdaptiveIMLE(**_NOISE),
    "PerturbedOptimizer": gm.PerturbedOptimizer(**_NOISE),
    "ScoreFunction": gm.ScoreFunction(**_NOISE),
    "FenchelYoung": gm.FenchelYoung(**_NOISE),
    "NegativeIdentity": gm.NegativeIdentity(),
    "StraightThroughSinkhorn": gm.StraightThroughSinkhorn(),
}
WHOLE_LOSSES = {"BarycenterAlignment": False, "BarycenterAlignment(legacy=True)": True}
PEERS = ("DPO", "IMLE, lambda 10 (default)", "AIMLE, two sides", "DBB, lambda 10 (default)", "NID")

Loss = Callable[[Tensor], Tensor]


def scaling(subject: str, precision: str) -> dict[str, list[float | None]]:
    """Measures a subject at all scales.

    Returns:
        ratio: Norm of the gradient per unit of the scale, relative to that at scale 1. deviation: Largest difference of
        grad(s L) / s from grad(L), relative to the largest entry of grad(L). None where something overflowed.
    """
    if subject.startswith("PyEPO "):
        found = [peer_gradient(subject.removeprefix("PyEPO "), scale) / scale for scale in SCALES]
    else:
        found = [_gradient(subject, PRECISIONS[precision], scale).double() / scale for scale in SCALES]
    unit = found[SCALES.index(1.0)]
    return {
        "ratio": [_finite(each.norm() / unit.norm()) for each in found],
        "deviation": [_finite((each - unit).abs().max() / unit.abs().max()) for each in found],
    }


def _finite(value: Tensor) -> float | None:
    return float(value) if torch.isfinite(value) else None


def scaling_subjects() -> list[tuple[str, str]]:
    """Returns what is measured: subject and precision."""
    own = [(subject, precision) for subject in (*ESTIMATORS, *WHOLE_LOSSES) for precision in PRECISIONS]
    installed = importlib.util.find_spec("pyepo") is not None
    return own + [(f"PyEPO {name}", "float32") for name in PEERS if installed]


def deviations(points: dict[str, Any]) -> Iterator[tuple[str, str, float, float | None]]:
    """Yields subject, precision, scale and deviation of all measured points."""
    for key, point in points.items():
        kind, *rest = key.split(" | ")
        if kind == "scale":
            for scale, value in zip(SCALES, point["deviation"], strict=True):
                yield rest[0], rest[1], scale, value


def _gradient(subject: str, precision: torch.dtype, scale: float) -> Tensor:
    """Returns the gradient in a weight matrix that the costs, or the views, are made with."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(_FEATURES, _FEATURES, generator=generator) / _FEATURES**0.5
    weight.requires_grad_()
    torch.manual_seed(0)  # dropout and the noise of the released recipe
    loss = _alignment(WHOLE_LOSSES[subject], generator) if subject in WHOLE_LOSSES else _matching(subject, generator)
    with _autocast(precision):
        value = loss(weight)
    (scale * value.float()).backward()
    assert weight.grad is not None
    return weight.grad


def _autocast(precision: torch.dtype) -> AbstractContextManager[Any]:
    return nullcontext() if precision == torch.float32 else torch.autocast("cpu", precision)


def _matching(subject: str, generator: torch.Generator) -> Loss:
    """Returns the Hamming loss, or the estimator's own, of matchings of points with noisy copies of them."""
    points = torch.randn(_BATCH, _NODES, _FEATURES, generator=generator)
    copies = points + torch.randn(points.shape, generator=generator)
    edges1, edges2 = (gm.knn_graph(each, _NEIGHBOURS).edges for each in (points, copies))
    layer = gm.MatchingLayer(gm.BranchAndBound(), ESTIMATORS[subject])
    target = torch.eye(_NODES)

    def loss(weight: Tensor) -> Tensor:
        left, right = points @ weight, copies @ weight
        differences = [
            each.gather(1, edges[..., 1, None].expand(-1, -1, _FEATURES))
            - each.gather(1, edges[..., 0, None].expand(-1, -1, _FEATURES))
            for each, edges in ((left, edges1), (right, edges2))
        ]
        unary = -torch.bmm(left, right.mT) / _FEATURES
        quadratic = -0.5 * torch.bmm(differences[0], differences[1].mT) / _FEATURES
        costs = (unary, quadratic, edges1, edges2)
        if subject == "FenchelYoung":
            return layer.loss(target, *costs)
        # In float32, as losses under autocast are: 65536, the first scale of a GradScaler, is more than float16 holds.
        if subject == "ScoreFunction":
            mistakes = lambda matching, pairs: (matching.float() - target).abs().sum((1, 2)) / _NODES  # noqa: E731
            return layer.expected_loss(mistakes, *costs).mean()
        return gm.hamming_loss(layer(*costs)[0].float(), target)

    return loss


def _alignment(legacy: bool, generator: torch.Generator) -> Loss:
    """Returns the alignment loss of three views of the same points."""
    points = torch.randn(4 * _NODES, _FEATURES, generator=generator)
    noise = torch.randn(3, *points.shape, generator=generator)
    alignment = gm.BarycenterAlignment(_FEATURES, legacy=legacy)
    return lambda weight: alignment(*((points + each) @ weight for each in noise))
