"""Supervised losses of matchings: known answers, targets in all their forms, gradients, and that they teach."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

import graphmatch as gm

ERROR_FORM = r"^\S.*: .+ must .+; got .+\. \S.*\.$"
KINDS = ("hamming", "cross_entropy", "fenchel_young")
every_kind = pytest.mark.parametrize("kind", KINDS)
ESTIMATORS = {
    "blackbox": gm.BlackBox(step=5.0),
    "imle": gm.IMLE(),
    "adaptive_imle": gm.AdaptiveIMLE(),
    "identity": gm.NegativeIdentity(),
    "perturbed": gm.PerturbedOptimizer(samples=8),
    "fenchel_young": gm.FenchelYoung(samples=8),
    "score_function": gm.ScoreFunction(samples=8),
    "straight_through": gm.StraightThroughSinkhorn(),
}


def instance(seed: int, batch: int = 2, n1: int = 4, n2: int = 4, edges: int = 6) -> tuple[Tensor, ...]:
    """Unary and quadratic costs and edges, in float64."""
    generator = torch.Generator().manual_seed(seed)
    unary = torch.randn(batch, n1, n2, generator=generator, dtype=torch.float64)
    quadratic = torch.randn(batch, edges, edges, generator=generator, dtype=torch.float64)
    edges1, edges2 = (torch.randint(n, (batch, edges, 2), generator=generator) for n in (n1, n2))
    return unary.requires_grad_(), quadratic.requires_grad_(), edges1, edges2


def exact(kind: str, unmatched_cost: float | None = None, quadratic: bool = True) -> gm.SupervisedMatchingLoss:
    """Without noise, and with an exact solver."""
    gradient = gm.FenchelYoung() if kind == "fenchel_young" else gm.BlackBox(step=0.5)
    solver = gm.BruteForce() if quadratic else gm.LAP()
    return gm.SupervisedMatchingLoss(kind, gm.MatchingLayer(solver, gradient, unmatched_cost), temperature=1.0).eval()


def test_hamming_counts_as_hamming_loss_does():
    costs = 1 - torch.eye(4)[torch.tensor([[1, 0, 2, 3], [0, 1, 3, 2]])]
    loss = exact("hamming", quadratic=False)
    assert loss(torch.arange(4), costs).item() == 1
    assert loss(torch.tensor([[1, 0, 2, 3], [0, 1, 2, 3]]), costs).item() == pytest.approx(0.5)
    assert loss(torch.tensor([[1, 0, -1, -1], [-1, 1, 2, -1]]), costs).item() == pytest.approx(2 / 4)
    target = torch.eye(4).repeat(2, 1, 1)
    target[0, :2, :2] = 1  # the first two may take each other's place
    assert loss(target, costs).item() == pytest.approx(0.5)


def test_hamming_of_nodes_that_should_stay_unmatched():
    costs = -torch.eye(3)[None]
    none_for_the_last = torch.tensor([[0, 1, -1]])
    assert exact("hamming", quadratic=False)(none_for_the_last, costs).item() == 0, "all must be matched"
    partial = exact("hamming", 0.0, quadratic=False)
    assert partial(none_for_the_last, costs).item() == pytest.approx(1 / 2)
    assert partial(none_for_the_last, costs, mask=torch.tensor([True, True, False])).item() == 0
    costs[0, 2, 2] = 1.0
    assert partial(none_for_the_last, costs).item() == 0
    assert partial(torch.arange(3), costs).item() == pytest.approx(1 / 3), "missing and not wrong"


def test_cross_entropy_by_hand():
    loss = gm.SupervisedMatchingLoss("cross_entropy", temperature=0.5)
    # Of two by two nodes: the logit of the cheaper matching is half of the difference of their costs.
    costs = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    assert loss(torch.tensor([0, 1]), costs).item() == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-5)
    assert loss(torch.tensor([1, 0]), costs).item() == pytest.approx(math.log(1 + math.exp(2)), rel=1e-5)
    assert loss(torch.tensor([[1, -1]]), costs).item() == pytest.approx(math.log(1 + math.exp(2)), rel=1e-5)
    assert loss(torch.ones(1, 2, 2), costs).item() == pytest.approx(0, abs=1e-6), "any is right"


def test_cross_entropy_of_an_unmatched_node_by_hand():
    # One node each and a match as dear as none: P = (1 - P)^2.
    layer = gm.MatchingLayer(unmatched_cost=0.7)
    loss = gm.SupervisedMatchingLoss("cross_entropy", layer, temperature=0.2)
    costs = torch.full((1, 1, 1), 0.7, dtype=torch.float64)
    matched = (3 - math.sqrt(5)) / 2
    assert loss(torch.tensor([[0]]), costs).item() == pytest.approx(-math.log(matched))
    assert loss(torch.tensor([[-1]]), costs).item() == pytest.approx(-math.log(1 - matched))
    assert loss(torch.tensor([[-1]]), costs, mask=torch.tensor([False])).item() == 0


@pytest.mark.parametrize("unmatched_cost", [None, 0.3])
@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2)])
def test_cross_entropy_has_the_gradient_of_its_value(shape: tuple[int, int], unmatched_cost: float | None):
    unary, quadratic, edges1, edges2 = instance(0, 2, *shape)
    layer = gm.MatchingLayer(unmatched_cost=unmatched_cost)
    loss = gm.SupervisedMatchingLoss("cross_entropy", layer, temperature=1.5, relaxation_steps=2)
    target = torch.full((2, shape[0]), -1)
    target[0, :2], target[1, 0] = torch.tensor([1, 0]), 1
    assert torch.autograd.gradcheck(lambda costs: loss(target, costs), (unary,), atol=1e-6)

    def of_both(unary_costs: Tensor, quadratic_costs: Tensor) -> Tensor:
        return loss(target, unary_costs, quadratic_costs, edges1, edges2)

    assert torch.autograd.gradcheck(of_both, (unary, quadratic), atol=1e-5)


def test_cross_entropy_teaches_nodes_that_are_quite_wrong():
    costs = torch.tensor([[[5.0, 0.0], [0.0, 5.0]]], requires_grad=True)
    gm.SupervisedMatchingLoss("cross_entropy", temperature=0.05)(torch.arange(2), costs).backward()
    assert costs.grad[0, 0, 0].item() > 1
    assert costs.grad[0, 0, 1].item() < -1


def test_cross_entropy_sees_quadratic_costs():
    # A directed path, without any unary costs.
    edges = torch.tensor([[0, 1], [1, 2], [2, 3]])
    quadratic = torch.full((1, 3, 3), -1.0, requires_grad=True)
    loss = gm.SupervisedMatchingLoss("cross_entropy")
    right = loss(torch.arange(4), torch.zeros(1, 4, 4), quadratic, edges, edges)
    wrong = loss(torch.tensor([3, 2, 1, 0]), torch.zeros(1, 4, 4), quadratic, edges, edges)
    assert right.item() < 0.2 < wrong.item()
    wrong.backward()
    assert quadratic.grad.abs().max() > 0


def objective(
    costs: tuple[Tensor, ...], problem: int, matching: tuple[int, ...], unmatched_cost: float | None
) -> float:
    """The cost of a matching, pair by pair of edges."""
    unary, quadratic, edges1, edges2 = (each[problem] for each in costs)
    total = sum(
        unary[row, node].item() if node >= 0 else float(unmatched_cost or 0) for row, node in enumerate(matching)
    )
    for e, (a, b) in enumerate(edges1.tolist()):
        for f, pair in enumerate(edges2.tolist()):
            if [matching[a], matching[b]] == pair:
                first = edges2.tolist().index(pair)
                assert first <= f
                total += quadratic[e, f].item()
    return total


def candidates(n1: int, n2: int) -> list[tuple[int, ...]]:
    """All matchings of min(n1, n2) nodes."""
    nodes = [*range(n2), *[-1] * max(n1 - n2, 0)]
    return sorted(set(permutations(nodes, n1)))


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2)])
@pytest.mark.parametrize("seed", range(4))
def test_fenchel_young_compares_with_the_cheapest_completion(shape: tuple[int, int], seed: int):
    costs = instance(seed, 2, *shape, edges=3)
    target = torch.full((2, shape[0]), -1)
    target[0, 1], target[1, 0] = 1, 0
    expected = 0.0
    for problem in range(2):
        known = [(row, node) for row, node in enumerate(target[problem].tolist()) if node >= 0]
        values = {matching: objective(costs, problem, matching, None) for matching in candidates(*shape)}
        agreeing = [value for each, value in values.items() if all(each[row] == node for row, node in known)]
        expected += (min(agreeing) - min(values.values())) / 2
    assert exact("fenchel_young")(target, *costs).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_fenchel_young_takes_the_cheapest_of_several_targets(seed: int):
    unary = instance(seed, 1, 4, 4)[0]
    target = torch.eye(4)[None].clone()
    target[0, :3, :3] = 1
    value = {each: sum(unary[0, row, node].item() for row, node in enumerate(each)) for each in candidates(4, 4)}
    agreeing = min(cost for each, cost in value.items() if each[3] == 3)
    loss = exact("fenchel_young", quadratic=False)(target, unary)
    assert loss.item() == pytest.approx(agreeing - min(value.values()), abs=1e-9)


def test_fenchel_young_of_a_whole_target_is_that_of_the_layer():
    costs = instance(0)
    target = torch.tensor([[1, 0, 3, 2], [0, 2, 1, 3]])
    layer = gm.MatchingLayer(gradient=gm.FenchelYoung(samples=3))
    found = gm.SupervisedMatchingLoss("fenchel_young", layer)(target, *costs, step=5)
    expected = layer.loss(nn.functional.one_hot(target, 4), *costs, step=5)
    assert found.item() == expected.item()


def test_fenchel_young_of_nodes_that_should_stay_unmatched():
    costs = torch.tensor([[[-1.0, 0.0], [0.0, -1.0]]])
    loss = exact("fenchel_young", 0.0, quadratic=False)
    assert loss(torch.tensor([[0, -1]]), costs).item() == 1, "the second node should not be matched, and gains 1"
    assert loss(torch.tensor([[0, -1]]), costs, mask=torch.tensor([True, False])).item() == 0
    assert loss(torch.tensor([[1, -1]]), costs, mask=torch.tensor([True, False])).item() == 2


@every_kind
@pytest.mark.parametrize("unmatched_cost", [None, 0.1])
def test_targets_have_several_forms(kind: str, unmatched_cost: float | None):
    costs = instance(1, 2, 4, 5)
    loss = exact(kind, unmatched_cost)
    index = torch.tensor([[1, 0, 4, -1], [2, -1, 1, 0]])
    matrix = (index[:, :, None] == torch.arange(5)).int()
    values = {loss(form, *costs).item() for form in (index, matrix, matrix.bool(), matrix.double(), matrix.long())}
    assert len(values) == 1
    shared = {loss(form, *costs).item() for form in (index[0], index[:1].expand(2, -1), matrix[0], matrix[0].float())}
    assert len(shared) == 1
    # Left out by the mask, or without a target where all must be matched.
    masked = loss(torch.tensor([[1, 0, 4, 2], [2, 4, 1, 0]]), *costs, mask=index >= 0).item()
    if unmatched_cost is None:
        assert masked == pytest.approx(values.pop())
    else:
        assert masked != pytest.approx(values.pop())


@every_kind
@pytest.mark.parametrize("unmatched_cost", [None, 0.1])
@hypothesis.given(seed=st.integers(0, 2**31))
@hypothesis.settings(max_examples=10)
def test_the_order_of_nodes_does_not_matter(kind: str, unmatched_cost: float | None, seed: int):
    unary, quadratic, edges1, edges2 = instance(seed, 1)
    generator = torch.Generator().manual_seed(seed)
    target = torch.randperm(4, generator=generator).masked_fill(torch.rand(4, generator=generator) < 0.3, -1)
    order1, order2 = (torch.randperm(4, generator=generator) for _ in range(2))
    places1, places2 = order1.argsort(), order2.argsort()
    moved = target[order1]
    moved = torch.where(moved >= 0, places2[moved], -1)
    loss = exact(kind, unmatched_cost)
    expected = loss(target, unary, quadratic, edges1, edges2).item()
    found = loss(moved, unary[:, order1][:, :, order2], quadratic, places1[edges1], places2[edges2]).item()
    assert found == pytest.approx(expected, abs=1e-6)


@every_kind
@pytest.mark.parametrize("unmatched_cost", [None, 0.1])
@pytest.mark.parametrize("is_linear", [True, False])
def test_padding_has_no_influence(kind: str, unmatched_cost: float | None, is_linear: bool):
    small = instance(2, 1, 3, 4, edges=5)
    loss = exact(kind, unmatched_cost, quadratic=not is_linear)
    target = torch.tensor([[2, -1, 0]])
    given = small[:1] if is_linear else small
    expected = torch.autograd.grad(loss(target, *given), given[:2])
    for junk in (7.0, torch.nan):
        unary = torch.full((1, 5, 6), junk, dtype=torch.float64)
        quadratic = torch.full((1, 8, 9), junk, dtype=torch.float64)
        edges1, edges2 = torch.full((1, 8, 2), 10**6), torch.full((1, 9, 2), -3)
        unary[:, :3, :4], quadratic[:, :5, :5] = small[0].detach(), small[1].detach()
        edges1[:, :5], edges2[:, :5] = small[2], small[3]
        padded = (unary.requires_grad_(), quadratic.requires_grad_(), edges1, edges2)
        sizes = torch.tensor([[3, 4, 5, 5]])
        long_target = torch.tensor([[2, -1, 0, 5, 5]])
        arguments = padded[:1] if is_linear else padded
        value = loss(long_target, *arguments, sizes=sizes[:, :2] if is_linear else sizes)
        assert value.item() == pytest.approx(loss(target, *given).item())
        for one, other in zip(torch.autograd.grad(value, arguments[:2]), expected, strict=True):
            torch.testing.assert_close(one[:, : other.shape[1], : other.shape[2]], other, rtol=1e-5, atol=1e-5)
            assert one.isfinite().all()
            assert one.abs().sum().item() == pytest.approx(other.abs().sum().item(), rel=1e-4)


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize("unmatched_cost", [None, 0.5])
def test_hamming_through_every_estimator(estimator: gm.GradientEstimator, unmatched_cost: float | None):
    unary, quadratic, edges1, edges2 = instance(3, 4)
    layer = gm.MatchingLayer(gradient=estimator, unmatched_cost=unmatched_cost)
    target = torch.tensor([[1, 0, -1, 2]])
    loss = gm.SupervisedMatchingLoss("hamming", layer)(target.expand(4, -1), unary, quadratic, edges1, edges2)
    loss.backward()
    # The loss looks at the matching alone, and this estimator passes on what it is given.
    expected = (unary,) if isinstance(estimator, gm.NegativeIdentity) else (unary, quadratic)
    for costs in expected:
        assert costs.grad.isfinite().all()
        assert costs.grad.abs().max() > 0


@every_kind
@pytest.mark.parametrize("shape", [(0, 3, 3), (2, 0, 0), (2, 3, 0), (2, 0, 3)], ids=str)
def test_nothing_to_match_has_no_loss(kind: str, shape: tuple[int, int, int]):
    unary = torch.zeros(shape, requires_grad=True)
    loss = gm.SupervisedMatchingLoss(kind)(torch.full(shape[:2], -1), unary)
    assert loss.item() == 0
    loss.backward()
    assert unary.grad.shape == shape


@every_kind
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast(kind: str, half: torch.dtype):
    unary, quadratic, edges1, edges2 = instance(4)
    costs = [each.detach().to(half).requires_grad_() for each in (unary, quadratic)]
    loss = exact(kind)
    target = torch.arange(4)
    value = loss(target, *costs, edges1, edges2)
    assert value.dtype == torch.float32
    expected = loss(target, *(each.float() for each in costs), edges1, edges2)
    with torch.autocast("cpu", half):
        again = loss(target, *(each.float() for each in costs), edges1, edges2)
    assert value.item() == expected.item() == again.item()
    value.backward()
    assert all(each.grad.dtype == half and each.grad.isfinite().all() for each in costs)


def cloud(generator: torch.Generator, rotation: Tensor, count: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    """Points, the same points rotated, with noise and in another order, and where each of the first went."""
    points = torch.randn(count, len(rotation), generator=generator)
    order = torch.randperm(count, generator=generator)
    noise = 0.1 * torch.randn(count, len(rotation), generator=generator)
    return points, ((points + noise) @ rotation)[order], order.argsort()


def matching_costs(first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
    graphs = [gm.knn_graph(points, 3) for points in (first, second)]
    features = [gm.edge_features(graph.nodes, graph.edges) for graph in graphs]
    quadratic = -0.5 * features[0] @ features[1].T
    return -gm.cosine_affinity(first, second)[None], quadratic[None], graphs[0].edges, graphs[1].edges


@every_kind
@pytest.mark.parametrize("is_linear", [True, False])
def test_a_short_training_learns_the_rotation(kind: str, is_linear: bool):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    head = nn.Linear(8, 8)
    loss = gm.SupervisedMatchingLoss(kind)
    optimizer = torch.optim.Adam(head.parameters(), lr=2e-2)

    @torch.no_grad()
    def accuracy() -> float:
        right = 0
        for _ in range(5):
            first, second, target = cloud(generator, rotation)
            right += int((gm.linear_assignment(-gm.cosine_affinity(head(first), second))[1] == target).sum())
        return right / 50

    before = accuracy()
    for _ in range(150):
        first, second, target = cloud(generator, rotation)
        target[torch.rand(len(target), generator=generator) < 0.2] = -1
        costs = matching_costs(head(first), second)
        optimizer.zero_grad()
        loss(target, *(costs[:1] if is_linear else costs)).backward()
        optimizer.step()
    assert before < 0.5
    assert accuracy() > 0.9


COSTS = torch.zeros(1, 3, 3)


@pytest.mark.parametrize(
    ("call", "error", "argument"),
    [
        (lambda: gm.SupervisedMatchingLoss("focal"), ValueError, "kind"),
        (lambda: gm.SupervisedMatchingLoss("fenchel_young", gm.MatchingLayer()), TypeError, "layer"),
        (lambda: gm.SupervisedMatchingLoss(temperature=0.0), ValueError, "temperature"),
        (lambda: gm.SupervisedMatchingLoss(relaxation_steps=0), ValueError, "relaxation_steps"),
        (lambda: gm.SupervisedMatchingLoss(relaxation_steps=1.5), TypeError, "relaxation_steps"),
        (lambda: gm.SupervisedMatchingLoss()(torch.arange(3), torch.zeros(3, 3)), ValueError, "unary_costs"),
        (lambda: gm.SupervisedMatchingLoss()([0, 1, 2], COSTS), TypeError, "target"),
        (lambda: gm.SupervisedMatchingLoss()(torch.arange(2), COSTS), ValueError, "target"),
        (lambda: gm.SupervisedMatchingLoss()(torch.eye(2), COSTS), ValueError, "target"),
        (lambda: gm.SupervisedMatchingLoss()(torch.eye(3) / 2, COSTS), ValueError, "target"),
        (lambda: gm.SupervisedMatchingLoss()(torch.tensor([0, 1, 3]), COSTS), ValueError, "target"),
        (lambda: gm.SupervisedMatchingLoss()(torch.tensor([0, 1, -2]), COSTS), ValueError, "target"),
        (lambda: gm.SupervisedMatchingLoss()(torch.tensor([0, 1, 1]), COSTS), ValueError, "target"),
        (lambda: gm.SupervisedMatchingLoss()(torch.arange(3), COSTS, mask=torch.ones(3)), TypeError, "mask"),
        (
            lambda: gm.SupervisedMatchingLoss()(torch.arange(3), COSTS, mask=torch.ones(2, dtype=torch.bool)),
            ValueError,
            "mask",
        ),
        (
            lambda: gm.SupervisedMatchingLoss()(torch.arange(3), COSTS, torch.zeros(1, 0, 0)),
            ValueError,
            "quadratic_costs, edges1 and edges2",
        ),
    ],
)
def test_bad_input_gives_one_clear_sentence(call: Callable, error: type[Exception], argument: str):
    with pytest.raises(error, match=ERROR_FORM) as caught:
        call()
    assert str(caught.value).startswith(f"SupervisedMatchingLoss: {argument} must")
