"""Alignments of partial views against an oracle that builds, solves and judges each problem alone, row by row."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, product

import pytest
import torch
from torch import Tensor, nn

import graphmatch as gm

# Message passing starts from random weights.
pytestmark = pytest.mark.usefixtures("seed")
ALIGNMENTS: dict[str, Callable[..., gm.BarycenterAlignment | gm.PairwiseAlignment]] = {
    "leave_one_out": gm.BarycenterAlignment,
    "mean": lambda dim, **options: gm.BarycenterAlignment(dim, barycenter="mean", **options),
    "pairwise": gm.PairwiseAlignment,
}


def random_views(count: int, samples: int, dim: int = 6, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(samples, dim, generator=generator).requires_grad_() for _ in range(count)]


def random_labels(count: int, samples: int, universe: int, seed: int, missing: float = 0.2) -> Tensor:
    """Distinct labels per view, some of them -1."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.stack([torch.randperm(universe, generator=generator)[:samples] for _ in range(count)])
    return labels.masked_fill(torch.rand(count, samples, generator=generator) < missing, -1)


# What the oracle knows of a graph: nodes (n, d), the label of each, and what it shows: equals may be interchanged.
Side = tuple[Tensor, list[int], list[tuple]]


def oracle_sides(
    views: list[Tensor], mask: Tensor, labels: Tensor, groups: Tensor, kind: str, weights: list[float] | None
) -> list[tuple[Side, Side]]:
    """The graphs of each problem, one row after another."""
    sides = []
    for place, view in enumerate(views):
        kept = [row for row in range(len(view)) if mask[place, row]]
        group = [int(groups[place, row]) for row in kept]
        shown = [(place, "group", each) if each >= 0 else (place, "row", row) for row, each in enumerate(group)]
        sides.append((view[kept], [int(labels[place, row]) for row in kept], shown))
    if kind == "pairwise":
        return list(combinations(sides, 2))
    problems = []
    for own in range(len(views)):
        rows = []
        for label in sorted({name for _, names, _ in sides for name in names if name >= 0}):
            parts = [
                (weights[place] if weights else 1.0, nodes[names.index(label)], shown[names.index(label)])
                for place, (nodes, names, shown) in enumerate(sides)
                if label in names and not (kind == "leave_one_out" and place == own)
            ]
            total = sum(weight for weight, _, _ in parts)
            if total > 0:
                mean = sum(weight * row for weight, row, _ in parts) / total
                rows.append((label, mean, tuple(shown for weight, _, shown in parts if weight > 0)))
        centre = torch.stack([row for _, row, _ in rows]) if rows else views[0][:0]
        problems.append((sides[own], (centre, [label for label, _, _ in rows], [shown for *_, shown in rows])))
    return problems


def oracle_accepted(left: Side, right: Side, chained: bool) -> list[set[int]]:
    """Nodes of the right graph that each node of the left one may be matched with."""
    accepted: list[set[int]] = [set() for _ in left[1]]
    for row, shown1 in enumerate(left[2]):
        for node, shown2 in enumerate(right[2]):
            for i, j in product(range(len(left[1])), range(len(right[1]))):
                is_sample = left[1][i] >= 0 and left[1][i] == right[1][j]
                alike = (left[2][i] == shown1, right[2][j] == shown2)
                if is_sample and all(alike) and (chained or i == row or j == node):
                    accepted[row].add(node)
    return accepted


@torch.no_grad()
def oracle_loss(alignment: nn.Module, problems: list[tuple[Side, Side]]) -> tuple[float, float]:
    """Loss and accuracy: each problem solved alone by enumeration, errors counted node by node."""
    if alignment.directions == "both":
        problems = problems + [(second, first) for first, second in problems]
    errors = hits = targets = 0
    unmatched_cost = alignment.layer.unmatched_cost
    for left, right in problems:
        graphs = [gm.knn_graph(points.detach(), alignment.k) for points in (left[0], right[0])]
        nodes = [alignment.message_passing(graph.nodes, graph.edges) for graph in graphs]
        features = [gm.edge_features(node, graph.edges) for node, graph in zip(nodes, graphs, strict=True)]
        unary = -gm.cosine_affinity(*nodes)[None]
        wanted = oracle_accepted(left, right, isinstance(alignment, gm.PairwiseAlignment))
        if alignment.training:
            for row, accepted in enumerate(wanted):
                unary[0, row, sorted(accepted)] += alignment.margin
        quadratic = -alignment.edge_weight * (features[0] @ features[1].T)[None]
        edges = (graph.edges[None] for graph in graphs)
        problem = gm.LawlerProblem(unary, quadratic, *edges, unmatched_cost=unmatched_cost)
        found = gm.solve(problem, gm.BruteForce()).assignment[0].tolist()
        for node, accepted in zip(found, wanted, strict=True):
            if not accepted:
                errors += int(unmatched_cost is not None and node >= 0)
                continue
            targets += 1
            hits += int(node in accepted)
            errors += 0 if node in accepted else 1 + int(node >= 0)
    return errors / max(targets, 1), hits / targets if targets else float("nan")


@pytest.mark.parametrize("kind", ALIGNMENTS)
@pytest.mark.parametrize("count", [2, 3, 4, 5])
@pytest.mark.parametrize("directions", ["forward", "both"])
@pytest.mark.parametrize("unmatched_cost", [None, -0.3])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_absent_samples_other_orders_and_groups_against_the_oracle(
    kind: str, count: int, directions: str, unmatched_cost: float | None, seed: int
):
    generator = torch.Generator().manual_seed(seed)
    views = [view.detach().double() for view in random_views(count, 5, seed=seed)]
    mask = torch.rand(count, 5, generator=generator) < 0.8
    labels = random_labels(count, 5, 6, seed)
    options = {"k": 2, "directions": directions, "unmatched_cost": unmatched_cost, "solver": gm.BruteForce()}
    weights = torch.rand(count, generator=generator).tolist() if kind != "pairwise" and seed else None
    if weights is not None:
        options["weights"] = weights
    torch.manual_seed(seed)
    alignment = ALIGNMENTS[kind](6, **options).double().eval()
    none = torch.full_like(labels, -1)
    # Few groups, and those of the samples: so that barycenters have equal nodes too.
    of_samples = torch.where(labels >= 0, labels % 2, -1)
    for groups in (none, torch.randint(-1, 2, (count, 5), generator=generator), of_samples):
        details = alignment.details(*views, mask=mask, labels=labels, groups=groups)
        problems = oracle_sides(views, mask, labels, groups, kind, weights)
        loss, accuracy = oracle_loss(alignment, problems)
        assert details.loss.item() == pytest.approx(loss)
        assert details.matching_accuracy.item() == pytest.approx(accuracy, nan_ok=True)


@pytest.mark.parametrize("kind", ALIGNMENTS)
@pytest.mark.parametrize("directions", ["forward", "both"])
@pytest.mark.parametrize("unmatched_cost", [None, -0.3])
def test_a_margin_is_the_price_of_right_matches_in_training(kind: str, directions: str, unmatched_cost: float | None):
    options = {"k": 2, "directions": directions, "unmatched_cost": unmatched_cost, "solver": gm.BruteForce()}
    losses = []
    for seed in range(6):
        views = random_views(1, 5, seed=seed)[0].detach().double()
        views = [views + 0.1 * view.detach() for view in random_views(3, 5, seed=seed + 1)]
        mask = torch.rand(3, 5, generator=torch.Generator().manual_seed(seed)) < 0.9
        labels, groups = torch.arange(5).expand(3, 5), torch.tensor([0, 0, -1, 1, 1]).expand(3, 5)
        torch.manual_seed(seed)
        # Neither dropout nor noise: in training the same as in evaluation, but for the margin.
        options |= {"dropout": 0.0, "gradient": gm.BlackBox(step=0.5), "margin": 0.4}
        alignment = ALIGNMENTS[kind](6, **options).double()
        problems = oracle_sides(views, mask, labels, groups, kind, None)
        for training in (True, False):
            details = alignment.train(training).details(*views, mask=mask, labels=labels, groups=groups)
            loss, accuracy = oracle_loss(alignment, problems)
            assert details.loss.item() == pytest.approx(loss)
            assert details.matching_accuracy.item() == pytest.approx(accuracy, nan_ok=True)
            losses.append(loss)
    assert sum(losses[::2]) > sum(losses[1::2])


def test_weights_of_views_in_the_barycenter():
    views = [view.double() for view in random_views(3, 7)]
    torch.manual_seed(0)
    for barycenter in ("leave_one_out", "mean"):
        plain = gm.BarycenterAlignment(6, k=2, barycenter=barycenter).double().eval()
        equal = gm.BarycenterAlignment(6, k=2, barycenter=barycenter, weights=[5.0] * 3).double().eval()
        equal.load_state_dict(plain.state_dict())
        assert equal(*views).item() == pytest.approx(plain(*views).item())
    # All weight on two views: the third is matched with their mean, each of them with the other.
    pair = gm.BarycenterAlignment(6, k=2, weights=[1, 1, 0]).double().eval()
    labels = torch.arange(7).expand(3, 7)
    problems = oracle_sides(views, torch.ones(3, 7), labels, -torch.ones(3, 7), "leave_one_out", [1, 1, 0])
    torch.testing.assert_close(problems[0][1][0], views[1])
    torch.testing.assert_close(problems[2][1][0], (views[0] + views[1]) / 2)
    assert pair(*views).item() == pytest.approx(oracle_loss(pair, problems)[0])
