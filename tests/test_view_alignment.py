"""Alignments of views that lack samples, or have them in other orders: what must not matter, and what must."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

import graphmatch as gm

# Message passing starts from random weights.
pytestmark = pytest.mark.usefixtures("seed")
ERROR_FORM = r"^\S.*: .+ must .+; got .+\. \S.*\.$"
ESTIMATORS = {
    "blackbox": gm.BlackBox(),
    "imle": gm.IMLE(step=3.0, noise_scale=0.3),
    "adaptive_imle": gm.AdaptiveIMLE(),
    "identity": gm.NegativeIdentity(),
    "perturbed": gm.PerturbedOptimizer(samples=8),
    "fenchel_young": gm.FenchelYoung(samples=8),
    "score_function": gm.ScoreFunction(samples=8),
    "straight_through": gm.StraightThroughSinkhorn(),
}
ALIGNMENTS: dict[str, Callable[..., gm.BarycenterAlignment | gm.PairwiseAlignment]] = {
    "leave_one_out": gm.BarycenterAlignment,
    "mean": lambda dim, **options: gm.BarycenterAlignment(dim, barycenter="mean", **options),
    "pairwise": gm.PairwiseAlignment,
}
every_alignment = pytest.mark.parametrize("build", ALIGNMENTS.values(), ids=ALIGNMENTS)


def random_views(count: int, samples: int, dim: int = 6, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(samples, dim, generator=generator).requires_grad_() for _ in range(count)]


def noisy_copies(samples: int = 12, dim: int = 6, noise: float = 0.01, count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(samples, dim, generator=generator)
    return [points + noise * torch.randn(samples, dim, generator=generator) for _ in range(count)]


def random_labels(count: int, samples: int, universe: int, seed: int, missing: float = 0.2) -> Tensor:
    """Distinct labels per view, some of them -1."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.stack([torch.randperm(universe, generator=generator)[:samples] for _ in range(count)])
    return labels.masked_fill(torch.rand(count, samples, generator=generator) < missing, -1)


@every_alignment
@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_whole_views_are_the_special_case(build: Callable, count: int):
    views = [view.double() for view in random_views(count, 9)]
    alignment = build(6, k=3).double().eval()
    plain = alignment.details(*views)
    everywhere = torch.ones(9, dtype=torch.bool)
    labels = torch.arange(9).expand(count, 9)
    distinct = torch.arange(9)
    for options in ({"mask": everywhere}, {"labels": 7 * labels + 3}, {"mask": everywhere, "labels": labels}):
        details = alignment.details(*views, **options)
        for name in ("loss", "matching_accuracy", "retrieval"):
            torch.testing.assert_close(getattr(details, name), getattr(plain, name).to(getattr(details, name)))
    assert alignment(*views, groups=distinct).item() == plain.loss.item()


@every_alignment
@pytest.mark.parametrize("noise", [0.01, 1.0])
def test_the_order_of_a_view_does_not_matter_if_its_labels_go_along(build: Callable, noise: float):
    views = [view.double() for view in noisy_copies(8, noise=noise)]
    alignment = build(6, k=3, solver=gm.BruteForce() if noise == 1.0 else None).double().eval()
    orders = [torch.randperm(8, generator=torch.Generator().manual_seed(place)) for place in range(3)]
    labels = torch.stack(orders)
    plain = alignment.details(*views)
    moved = alignment.details(*(view[order] for view, order in zip(views, orders, strict=True)), labels=labels)
    assert moved.loss.item() == pytest.approx(plain.loss.item())
    assert moved.matching_accuracy.item() == pytest.approx(plain.matching_accuracy.item())
    assert moved.retrieval.item() == pytest.approx(plain.retrieval.item())
    assert noise > 0.01 or plain.loss.item() == 0


@pytest.mark.parametrize("kind", ALIGNMENTS)
@hypothesis.given(seed=st.integers(0, 2**31), junk=st.sampled_from([0.0, 1e30, float("nan"), float("inf")]))
def test_what_is_absent_has_no_influence(kind: str, seed: int, junk: float):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(3, 7, generator=generator) < 0.7
    labels = random_labels(3, 7, 9, seed)
    torch.manual_seed(0)
    alignment = ALIGNMENTS[kind](6, k=3, dropout=0.0)
    losses, gradients = [], []
    for filler in (1.0, junk):
        views = random_views(3, 7, seed=seed)
        filled = [
            torch.where(present[:, None], view, filler).detach().requires_grad_()
            for view, present in zip(views, mask, strict=True)
        ]
        alignment.layer.calls.zero_()
        loss = alignment(*filled, mask=mask, labels=labels, groups=torch.randint(5, (3, 7), generator=generator))
        generator.manual_seed(seed)
        torch.rand(3, 7, generator=generator)
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.stack([view.grad for view in filled]))
    assert losses[0] == losses[1]
    assert torch.equal(*gradients)
    assert gradients[0][~mask].eq(0).all()


@every_alignment
def test_a_mask_is_the_same_as_shorter_views(build: Callable):
    views = [view.double() for view in random_views(3, 9)]
    alignment = build(6, k=3).double().eval()
    mask = torch.arange(9) < 6
    scattered = torch.tensor([0, 6, 1, 7, 2, 3, 8, 4, 5])  # the first six of each view, padding in between
    short, long = (
        alignment.details(*(view[:6] for view in views)),
        alignment.details(*(view[scattered] for view in views), mask=mask[scattered]),
    )
    for name in ("loss", "matching_accuracy", "retrieval"):
        torch.testing.assert_close(getattr(long, name).double(), getattr(short, name).double())


@every_alignment
@pytest.mark.parametrize("options", [{}, {"directions": "both"}, {"unmatched_cost": 0.0}], ids=str)
@pytest.mark.parametrize("kept", [0, 1, 2])
def test_hardly_any_samples(build: Callable, options: dict, kept: int):
    views = random_views(3, 4)
    alignment = build(6, **options)
    loss = alignment(*views, mask=torch.arange(4) < kept)
    assert 0 <= loss.item() <= 2
    assert kept > 1 or "unmatched_cost" in options or loss.item() == 0
    loss.backward()
    assert all(view.grad.isfinite().all() for view in views)
    details = alignment.details(*views, mask=torch.zeros(3, 4, dtype=torch.bool))
    assert details.loss.item() == 0
    assert details.matching_accuracy.isnan()
    assert details.retrieval.isnan()


@pytest.mark.parametrize("build", [gm.BarycenterAlignment, gm.PairwiseAlignment])
def test_samples_in_one_view_only_have_no_counterpart(build: Callable):
    details = build(6).details(*random_views(3, 4), mask=torch.eye(3, 4, dtype=torch.bool))
    assert details.loss.item() == 0
    assert details.matching_accuracy.isnan()
    assert details.retrieval.isnan()


@every_alignment
def test_a_sample_that_one_view_lacks(build: Callable):
    views = noisy_copies(8)
    mask = torch.ones(3, 8, dtype=torch.bool)
    mask[1, 3] = False
    details = build(6, k=3).eval().details(*views, mask=mask)
    assert details.loss.item() == 0
    assert details.matching_accuracy.item() == details.retrieval.item() == 1


def test_rows_without_a_counterpart_count_where_they_may_stay_unmatched():
    # The last row of each view means something else than that of the other, and looks like it.
    views = noisy_copies(6, count=2)
    labels = torch.tensor([[0, 1, 2, 3, 4, -1], [0, 1, 2, 3, 4, -1]])
    assert gm.PairwiseAlignment(6, k=3).eval()(*views, labels=labels).item() == 0
    partial = gm.PairwiseAlignment(6, k=3, unmatched_cost=0.0).eval()
    assert partial(*views, labels=labels).item() == pytest.approx(1 / 5)


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_groups_say_what_may_take_each_other_s_place(kind: str):
    # Samples 0 to 2 are three photographs of one thing, too different to count as equal.
    views = [view.double() for view in noisy_copies(7)]
    swapped = torch.tensor([1, 2, 0, 3, 4, 5, 6])
    moved = [views[0][swapped], *views[1:]]
    groups = torch.tensor([5, 5, 5, -1, -1, 1, 2])
    alignment = ALIGNMENTS[kind](6, k=3).double().eval()
    assert alignment(*moved).item() > 0
    per_view = torch.stack([groups, torch.full((7,), -1), torch.full((7,), -1)])
    for given in (groups, per_view):
        for options in ({}, {"mask": torch.ones(7, dtype=torch.bool)}):
            if kind == "mean" and given is per_view:
                continue  # the barycenter contains the swapped view
            details = alignment.details(*moved, groups=given, **options)
            assert details.loss.item() == 0
            assert details.matching_accuracy.item() == details.retrieval.item() == 1
    # A swap among samples of different groups is wrong.
    other = [views[0][torch.tensor([0, 1, 2, 3, 4, 6, 5])], *views[1:]]
    assert alignment(*other, groups=groups).item() > 0


@dataclass(frozen=True)
class Forced:
    """Returns one matching whatever the costs are."""

    wanted: tuple[int, ...]

    def solve(self, problem: gm.LawlerProblem) -> gm.MatchResult:
        unary = 1 - torch.eye(len(self.wanted))[torch.tensor([self.wanted])]
        edges = (problem.edges1, problem.edges2)
        return gm.DualAscent().solve(gm.LawlerProblem(unary, 0 * problem.quadratic_costs, *edges))


def test_pairs_accept_what_a_sample_with_equal_rows_shows():
    # Image 0 is in samples 0 and 1, text 1 in samples 1 and 2: image 0 goes with text 1, and with that of sample 2.
    image, text = noisy_copies(5, dim=8, count=2)
    image[1], text[2] = image[0], text[1]
    moved = text[torch.tensor([2, 0, 1, 3, 4])]
    pairs = gm.PairwiseAlignment(8, k=2).eval()
    found = pairs.details(image, text)
    assert found.loss.item() == 0
    labels = torch.stack([torch.arange(5), torch.tensor([2, 0, 1, 3, 4])])
    assert pairs(image, moved, labels=labels).item() == 0
    for wanted, loss in (((2, 0, 1, 3, 4), 0), ((3, 1, 2, 0, 4), 4 / 5)):
        fixed = gm.PairwiseAlignment(8, k=2, solver=Forced(wanted)).eval()
        assert fixed(image, text).item() == pytest.approx(loss)


def test_two_views_pair_by_pair_are_each_other_s_barycenters():
    views = [view.double() for view in random_views(2, 9)]
    pairs = gm.PairwiseAlignment(6, k=3, directions="both", dropout=0.0).double()
    star = gm.BarycenterAlignment(6, k=3, dropout=0.0).double()
    star.load_state_dict(pairs.state_dict())
    one, other = (each.details(*views) for each in (pairs, star))
    for name in ("loss", "matching_accuracy", "retrieval"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name))
    first, second = (torch.autograd.grad(each.loss, views) for each in (one, other))
    assert first[0].abs().max() > 0
    for gradient, expected in zip(first, second, strict=True):
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
@every_alignment
def test_gradients_through_every_estimator(build: Callable, estimator: gm.GradientEstimator):
    torch.manual_seed(0)
    views = random_views(4, 10)
    mask = torch.rand(4, 10, generator=torch.Generator().manual_seed(0)) < 0.8
    alignment = build(6, k=3, gradient=estimator, directions="both")
    alignment(*views, mask=mask, labels=random_labels(4, 10, 12, 0)).backward()
    assert not alignment.zero_gradient
    for view, present in zip(views, mask, strict=True):
        assert view.grad.isfinite().all()
        assert view.grad[present].abs().max() > 0
        assert view.grad[~present].eq(0).all()
    for name, parameter in alignment.named_parameters():
        assert parameter.grad.abs().max() > 0, name


@every_alignment
def test_a_margin_teaches_where_matchings_are_barely_right(build: Callable):
    points = random_views(1, 12)[0].detach()
    for margin, is_silent in ((0.0, True), (2.0, False)):
        views = [points.clone().requires_grad_() for _ in range(3)]
        alignment = build(6, k=3, gradient=gm.BlackBox(step=5.0), dropout=0.0, margin=margin)
        loss = alignment(*views)
        loss.backward()
        assert (loss == 0) == is_silent
        assert alignment.zero_gradient == is_silent
        assert alignment.eval()(*views) == 0


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_pairs_are_solved_in_one_batch(count: int):
    views = random_views(count, 6)
    alignment = gm.PairwiseAlignment(6, k=2)
    details = alignment.details(*views)
    assert alignment.layer.result.assignment.shape == (count * (count - 1) // 2, 6)
    assert details.gap >= 0
    both = gm.PairwiseAlignment(6, k=2, directions="both")
    both(*views)
    assert both.layer.result.assignment.shape == (count * (count - 1), 6)


def test_the_state_is_that_of_message_passing_and_noise():
    names = {f"message_passing.conv{n}.{p}" for n in (1, 2) for p in ("lin_rel.weight", "lin_rel.bias")}
    names |= {"message_passing.conv1.lin_root.weight", "message_passing.conv2.lin_root.weight", "layer.calls"}
    for alignment in (gm.BarycenterAlignment(4, weights=[1, 2]), gm.PairwiseAlignment(4)):
        assert set(alignment.state_dict()) == names


def call(alignment: nn.Module | None = None, rows: int = 3, views: int = 2, **options: object) -> Tensor:
    return (gm.PairwiseAlignment(4) if alignment is None else alignment)(*[torch.zeros(rows, 4)] * views, **options)


@pytest.mark.parametrize(
    ("attempt", "error", "argument"),
    [
        (lambda: gm.PairwiseAlignment(0), ValueError, "dim"),
        (lambda: gm.PairwiseAlignment(4, directions="backward"), ValueError, "directions"),
        (lambda: gm.PairwiseAlignment(4, unmatched_cost="free"), TypeError, "unmatched_cost"),
        (lambda: gm.PairwiseAlignment(4, margin=-0.1), ValueError, "margin"),
        (lambda: gm.BarycenterAlignment(4, margin=float("nan")), ValueError, "margin"),
        (lambda: gm.BarycenterAlignment(4, margin=float("inf")), ValueError, "margin"),
        (lambda: gm.BarycenterAlignment(4, margin=None), TypeError, "margin"),
        (lambda: gm.PairwiseAlignment(4, edge_weight=None), TypeError, "edge_weight"),
        (lambda: gm.PairwiseAlignment(4, edge_weight=float("nan")), ValueError, "edge_weight"),
        (lambda: gm.PairwiseAlignment(4, dropout=float("nan")), ValueError, "dropout"),
        (lambda: gm.BarycenterAlignment(4, legacy=True, margin=0.1), ValueError, "weights, directions, unm"),
        (lambda: call(views=1), ValueError, "views"),
        (lambda: call(mask=torch.ones(3)), TypeError, "mask"),
        (lambda: call(mask=torch.ones(4, dtype=torch.bool)), ValueError, "mask"),
        (lambda: call(labels=torch.zeros(2, 3)), TypeError, "labels"),
        (lambda: call(labels=torch.arange(3)), ValueError, "labels"),
        (lambda: call(labels=torch.tensor([[0, 1, 2], [0, 2, 2]])), ValueError, "labels"),
        (lambda: call(labels=torch.tensor([[0, 1, 2], [0, 1, -2]])), ValueError, "labels"),
        (lambda: call(groups=torch.zeros(3)), TypeError, "groups"),
        (lambda: call(groups=torch.tensor([0, 0, -3])), ValueError, "groups"),
        (lambda: call(groups=torch.arange(3), labels=torch.arange(3).expand(2, 3)), ValueError, "groups"),
        (lambda: gm.BarycenterAlignment(4, weights=[1, -1]), ValueError, "weights"),
        (lambda: gm.BarycenterAlignment(4, weights=[1, float("nan")]), ValueError, "weights"),
        (lambda: gm.BarycenterAlignment(4, weights=[1, 0]), ValueError, "weights"),
        (lambda: gm.BarycenterAlignment(4, weights=[0, 0], barycenter="mean"), ValueError, "weights"),
        (lambda: call(gm.BarycenterAlignment(4, weights=[1, 1, 1])), ValueError, "views"),
        (lambda: gm.BarycenterAlignment(4, legacy=True, weights=[1, 1]), ValueError, "weights, directions, unm"),
        (
            lambda: call(gm.BarycenterAlignment(4, legacy=True), mask=torch.ones(3, dtype=torch.bool)),
            ValueError,
            "mask, labels and groups",
        ),
    ],
)
def test_bad_input_gives_one_clear_sentence(attempt: Callable, error: type[Exception], argument: str):
    with pytest.raises(error, match=ERROR_FORM) as caught:
        attempt()
    assert f"Alignment: {argument}" in str(caught.value)


def test_values_are_checked_only_where_a_sample_is_there():
    views = [torch.zeros(3, 4), torch.zeros(3, 4)]
    views[1][2] = torch.nan
    with pytest.raises(ValueError, match="view 1 must hold finite costs"):
        gm.PairwiseAlignment(4)(*views)
    assert gm.PairwiseAlignment(4)(*views, mask=torch.tensor([True, True, False])).isfinite()


def test_retrieval_counts_rows_with_a_counterpart():
    views = [torch.eye(4), torch.eye(4)[[1, 0, 2, 3]]]
    alignment = gm.PairwiseAlignment(4, k=1).eval()
    assert alignment.details(*views).retrieval.item() == 0.5
    right = torch.tensor([[0, 1, 2, 3], [1, 0, 2, 3]])
    assert alignment.details(*views, labels=right).retrieval.item() == 1
    partly = torch.tensor([[0, 1, -1, 3], [0, 1, 2, -1]])
    assert alignment.details(*views, labels=partly).retrieval.item() == 0
    for pair in permutations(views):
        groups = torch.tensor([0, 0, 1, 2])
        assert alignment.details(*pair, groups=groups).retrieval.item() == 1


def test_padding_is_no_answer_of_a_retrieval():
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    second = torch.tensor([[-0.5, -1.0], [-1.0, -0.5], [9.0, 9.0]])  # all cosines of rows that are there are negative
    mask = torch.tensor([[True, True, True], [True, True, False]])
    assert gm.PairwiseAlignment(2, k=1).eval().details(first, second, mask=mask).retrieval.item() == 1
