"""Every gradient estimator teaches a network to match points, measured on pairs that training does not see."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import graphmatch as gm

SOLVER = gm.Portfolio(max_gap=1e-3, effort=0.02, max_iterations=5)


class Pairs(NamedTuple):
    """Points (b, n, 2) on either side, and which correspond, (b, n, n) 0/1."""

    left: Tensor
    right: Tensor
    target: Tensor


class Costs(nn.Module):
    """Costs from coordinates: cosines of node features and of edge features."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.nodes = nn.Sequential(nn.Linear(2, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))
        self.edges = nn.Sequential(nn.Linear(2, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, pairs: Pairs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        edges = [gm.knn_graph(points, 2).edges for points in pairs[:2]]
        vectors = [gm.edge_features(points, each) for points, each in zip(pairs[:2], edges, strict=True)]
        unary = -gm.cosine_affinity(self.nodes(pairs.left), self.nodes(pairs.right))
        return unary, -0.5 * gm.cosine_affinity(*map(self.edges, vectors)), *edges


class Arm(NamedTuple):
    """An estimator, its learning rate, its steps, and the accuracy that it must add on unseen pairs."""

    gradient: gm.GradientEstimator
    rate: float = 1e-2
    steps: int = 60
    margin: float = 0.2


SCORE: dict[str, Any] = {"samples": 32, "noise_scale": 0.5, "noise": "gaussian", "perturb": "unary"}
ARMS = {
    "black_box": Arm(gm.BlackBox()),
    "imle": Arm(gm.IMLE(step=3.0)),
    "imle_one_sided": Arm(gm.IMLE(step=3.0, symmetric=False)),
    "imle_eight_samples": Arm(gm.IMLE(samples=8, step=3.0, coupling="orthogonal")),
    "imle_sign": Arm(gm.IMLE(step=3.0, target="sign")),
    "adaptive_imle": Arm(gm.AdaptiveIMLE(step=3.0, wanted_changes=4.0, rate=0.05)),
    "perturbed_optimizer": Arm(gm.PerturbedOptimizer(**SCORE), 3e-3, steps=100, margin=0.15),
    "score_function": Arm(gm.ScoreFunction(**SCORE), 3e-3, steps=100, margin=0.15),
    "fenchel_young": Arm(gm.FenchelYoung(perturb="unary")),
    "straight_through_sinkhorn": Arm(gm.StraightThroughSinkhorn(temperature=0.3)),
    "negative_identity": Arm(gm.NegativeIdentity(normalise=True), margin=0.12),
}


def shuffled(left: Tensor, right: Tensor, generator: torch.Generator, turn: float) -> Pairs:
    """Turns each side by up to `turn` radians, centres and scales it, and shuffles the right one."""
    sides = []
    for points in (left, right):
        angle = turn * (2 * torch.rand(len(points), generator=generator) - 1)
        rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).reshape(-1, 2, 2)
        points = (points - points.mean(1, keepdim=True)) @ rotation
        sides.append(points / points.square().mean((1, 2), keepdim=True).sqrt())
    order = torch.rand(left.shape[:2], generator=generator).argsort(1)
    moved = sides[1].gather(1, order[..., None].expand(-1, -1, 2))
    return Pairs(sides[0], moved, (order[:, None, :] == torch.arange(order.shape[1])[:, None]).float())


def deformed(count: int, seed: int) -> Pairs:
    """Pairs of turned, deformed and jittered copies of one shape of six points."""
    shape = torch.randn(6, 2, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(seed)
    sides = [
        shape @ (torch.eye(2) + 0.1 * torch.randn(count, 2, 2, generator=generator))
        + 0.05 * torch.randn(count, 6, 2, generator=generator)
        for _ in range(2)
    ]
    return shuffled(sides[0], sides[1], generator, turn=1.5)


@torch.no_grad()
def accuracy(network: nn.Module, pairs: Pairs) -> float:
    """The share of points matched correctly, without noise."""
    matching = gm.solve(gm.LawlerProblem(*network(pairs)), SOLVER).matching
    return (matching * pairs.target).sum().item() / pairs.target.sum().item()


def loss(layer: gm.MatchingLayer, costs: tuple[Tensor, ...], target: Tensor) -> Tensor:
    """The Hamming loss, or what the estimator has in its place."""
    if isinstance(layer.gradient, gm.FenchelYoung):
        return layer.loss(target, *costs)
    if isinstance(layer.gradient, gm.ScoreFunction):
        return layer.expected_loss(lambda matching, _: (matching * (1 - target)).mean((1, 2)), *costs).mean()
    return gm.hamming_loss(layer(*costs)[0], target)


def gain(arm: Arm, training: Pairs, unseen: Pairs, batch: int = 16) -> float:
    """How much accuracy on unseen pairs training adds."""
    torch.manual_seed(0)
    network = Costs()
    before = accuracy(network, unseen)
    layer = gm.MatchingLayer(SOLVER, arm.gradient)
    optimizer = torch.optim.Adam(network.parameters(), lr=arm.rate)
    generator = torch.Generator().manual_seed(0)
    for _ in range(arm.steps):
        places = torch.randint(len(training.left), (batch,), generator=generator)
        pairs = Pairs(*(each[places] for each in training))
        optimizer.zero_grad()
        loss(layer, network(pairs), pairs.target).backward()
        optimizer.step()
    return accuracy(network, unseen) - before


@pytest.fixture(scope="module")
def unseen() -> Pairs:
    return deformed(200, seed=1)


def test_every_estimator_is_tested():
    estimators = {name for name in gm.gradients.__all__ if hasattr(getattr(gm.gradients, name), "__dataclass_fields__")}
    assert {type(arm.gradient).__name__ for arm in ARMS.values()} == estimators - {"Forward"}


@pytest.mark.parametrize("arm", [pytest.param(arm, id=name) for name, arm in ARMS.items()])
def test_every_estimator_teaches(arm: Arm, unseen: Pairs):
    assert gain(arm, deformed(1000, seed=0), unseen) > arm.margin


def test_random_targets_teach_nothing(unseen: Pairs):
    """What the margins above are worth: the same training without the right answers."""
    training = deformed(1000, seed=0)
    order = torch.randperm(len(training.target), generator=torch.Generator().manual_seed(0))
    assert gain(ARMS["black_box"], training._replace(target=training.target[order]), unseen) < 0.05


def willow(folder: Path, first: int, count: int, seed: int) -> Pairs:
    """Pairs of ducks out of a range of images."""
    ducks = json.loads((folder / "keypoints" / "willow" / "pts_coord.json").read_text(encoding="utf-8"))["duck"]
    images = torch.tensor([ducks[name] for name in sorted(ducks)])[first : first + 25]
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(count, len(images), generator=generator).argsort(1)
    return shuffled(images[places[:, 0]], images[places[:, 1]], generator, turn=1.5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["black_box", "imle", "fenchel_young"])
def test_landmarks_of_unseen_images_are_matched_after_training(name: str, data_folder: Path):
    arm = ARMS[name]._replace(steps=150)
    assert gain(arm, willow(data_folder, 0, 1000, seed=0), willow(data_folder, 25, 200, seed=1)) > 0.1


class RotatedPoints:
    """Rotations of noisy points, each in an order of its own, with some rows absent."""

    def __init__(self, count: int, dim: int = 12, noise: float = 0.1) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.noise, self.dim = noise, dim
        self.rotations = [torch.linalg.qr(self.normal(dim, dim)).Q for _ in range(count)]

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def draw(self, samples: int) -> tuple[list[Tensor], Tensor, Tensor]:
        points = self.normal(samples, self.dim)
        orders = [torch.randperm(samples, generator=self.generator) for _ in self.rotations]
        views = [
            (points[order] + self.noise * self.normal(samples, self.dim)) @ rotation
            for order, rotation in zip(orders, self.rotations, strict=True)
        ]
        mask = torch.rand(len(views), samples, generator=self.generator) < 0.9
        return views, mask, torch.stack(orders)


@pytest.mark.parametrize("build", [gm.BarycenterAlignment, gm.PairwiseAlignment])
@pytest.mark.parametrize("count", [2, 4])
def test_views_in_different_orders_are_learnt_from_their_labels(build: Callable, count: int):
    data = RotatedPoints(count)
    torch.manual_seed(0)
    heads = nn.ModuleList(nn.Linear(12, 12) for _ in range(count))
    alignment = build(12)
    optimizer = torch.optim.Adam([*heads.parameters(), *alignment.parameters()], lr=1e-2)

    def project(views: list[Tensor]) -> list[Tensor]:
        return [head(view) for head, view in zip(heads, views, strict=True)]

    def measured() -> gm.AlignmentDetails:
        views, mask, labels = data.draw(24)
        with torch.no_grad():
            return alignment.eval().details(*project(views), mask=mask, labels=labels)

    before = measured().retrieval.item()
    for _ in range(150):
        views, mask, labels = data.draw(16)
        alignment.train()
        optimizer.zero_grad()
        alignment(*project(views), mask=mask, labels=labels).backward()
        optimizer.step()
    after = measured()
    assert before < 0.25
    assert after.retrieval.item() > 0.9
    assert after.matching_accuracy.item() > 0.9
