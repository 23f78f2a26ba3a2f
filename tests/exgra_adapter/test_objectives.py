"""What every alignment objective owes the training: scale, order, duplicates, small batches and seeds."""

from __future__ import annotations

import copy
import dataclasses
import logging
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor, nn

import graphmatch as gm
from exgra_adapter.objectives import BatchViews, Objective, build_objective
from exgra_adapter.objectives.base import VIEWS, view_retrieval

DIM = 16
GRADIENTS = (
    "imle",
    "adaptive_imle",
    "blackbox",
    "perturbed",
    "fenchel_young",
    "negative_identity",
    "straight_through",
)
RELAXATIONS = ("spectral", "rrwm", "ipfp", "sinkhorn", "gumbel_sinkhorn")
BASELINES: dict[str, tuple[str, dict[str, Any]]] = {
    name: (name, {}) for name in ("infonce", "siglip", "optimal_transport", "vlap")
}
MATCHINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "barycenter": ("barycenter", {}),
    "mean": ("barycenter", {"barycenter": "mean"}),
    "both": ("barycenter", {"directions": "both"}),
    "two_views": ("barycenter", {"views": ("image", "answer")}),
    "no_messages": ("barycenter", {"message_passing": False}),
    "pairwise": ("pairwise", {}),
    "pairwise_fenchel_young": ("pairwise", {"gradient": "fenchel_young", "directions": "both"}),
    **{name: ("barycenter", {"gradient": name}) for name in GRADIENTS},
    **{name: ("barycenter", {"relaxation": name}) for name in RELAXATIONS},
}
CASES = {**BASELINES, **MATCHINGS}
every_objective = pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] if case == "rrwm" else []) for case in CASES]
)
# One solver of the literature stands for all of them where nothing depends on it.
every_kind = pytest.mark.parametrize("case", [case for case in CASES if case not in ("rrwm", "ipfp")])


def build(case: str, **options: Any) -> Objective:
    torch.manual_seed(0)
    name, own = CASES.get(case, (case, {}))
    objective = build_objective(name, DIM, **{**own, **options})
    assert objective is not None
    return objective


def few_neighbours(case: str) -> dict[str, Any]:
    return {"neighbours": 3} if case in MATCHINGS else {}


def random_views(samples: int, noise: float = 1.0, seed: int = 0) -> BatchViews:
    """Views of common points with noise of each view, patches and tokens with some more."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, DIM, generator=generator)

    points = normal(samples)
    image, answer, extended = (points + noise * normal(samples) for _ in range(3))
    parts = {name: (view[:, None] + 0.1 * normal(samples, 5)) for name, view in (("p", image), ("t", answer))}
    return BatchViews(image, answer, extended, patches=parts["p"], tokens=parts["t"], words=normal(40))


def taking_gradients(views: BatchViews) -> BatchViews:
    fresh = {
        field.name: getattr(views, field.name).clone().requires_grad_()
        for field in dataclasses.fields(views)
        if getattr(views, field.name) is not None and getattr(views, field.name).is_floating_point()
    }
    return dataclasses.replace(views, **fresh)


def selected(views: BatchViews, order: Tensor) -> BatchViews:
    """The samples in another order."""
    given = {field.name: getattr(views, field.name) for field in dataclasses.fields(views) if field.name != "words"}
    moved = {
        name: value[:, order] if name == "groups" else value[order]
        for name, value in given.items()
        if value is not None
    }
    return dataclasses.replace(views, **moved)


def gradients(
    objective: Objective, views: BatchViews, scale: float = 1.0, precision: torch.dtype | None = None
) -> dict[str, Tensor]:
    """Gradients of the scaled loss in all views and parameters, and the loss itself; always from the same state.

    Args:
        objective: Is copied.
        views: Are copied.
        scale: Of the loss.
        precision: Of autocast in the forward pass; None: none.
    """
    objective, views = copy.deepcopy(objective), taking_gradients(views)
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=precision or torch.bfloat16, enabled=precision is not None):
        loss = objective(views).loss
    (scale * loss).backward()
    leaves = {field.name: getattr(views, field.name) for field in dataclasses.fields(views)}
    leaves |= dict(objective.named_parameters())
    found = {name: leaf.grad for name, leaf in leaves.items() if leaf is not None and leaf.grad is not None}
    return {**found, "loss": loss.detach()}


@every_objective
def test_gradients_follow_the_scale_of_the_loss(case: str):
    """Trap 1: loss scaling, loss weights and accumulation multiply the gradient and do nothing else."""
    # Hardly any common points: matchings are wrong, and no gradient is silent.
    objective, views = build(case, **few_neighbours(case)), random_views(6, noise=5.0)
    plain = gradients(objective, views)
    assert any(gradient.abs().max() > 0 for name, gradient in plain.items() if name != "loss")
    for precision, scale in (
        (None, 1e-3),
        (None, 65536.0),
        (torch.bfloat16, 1.0),
        (torch.float16, 1e-3),
        (torch.float16, 65536.0),
    ):
        scaled = gradients(objective, views, scale, precision)
        assert torch.equal(scaled.pop("loss"), plain["loss"]), "autocast changes the loss"
        # Some gradients nearly cancel, and show the rounding of a factor that is no power of two.
        largest = max(gradient.abs().max() for name, gradient in plain.items() if name != "loss")
        for name, gradient in scaled.items():
            error = (gradient / scale - plain[name]).abs().max()
            assert error <= 1e-6 * (largest if scale == 1e-3 else plain[name].abs().max()), (name, precision, scale)


def test_the_released_gradient_does_not_follow_the_scale_of_the_loss():
    """Trap 1: with legacy, loss scaling for fp16 makes the gradient vanish, since lambda * g is no small step then."""
    objective, views = build("barycenter", legacy=True), random_views(8)
    plain, scaled = gradients(objective, views), gradients(objective, views, 65536.0)
    assert plain["image"].norm() > 0
    assert (scaled["image"] / 65536.0).norm() < 0.01 * plain["image"].norm()


@pytest.mark.parametrize("samples", [8, 128])
def test_large_batches_are_not_silent(samples: int):
    """Trap 2: the step of the perturbation does not shrink with 1/N, as the upstream gradient does."""
    objective = build("barycenter")
    objective(taking_gradients(random_views(samples))).loss.backward()
    assert not objective.zero_gradient
    adaptive = build("adaptive_imle")
    layer = adaptive.alignment.layer
    adaptive(taking_gradients(random_views(samples))).loss.backward()
    assert layer.gradient.changes_of(layer.memory) >= 4


def test_padding_has_no_influence_on_transport():
    """Trap 3: tokens and patches that the masks leave out may hold anything, and there may be any number of them."""
    objective, views = build("optimal_transport"), random_views(6)
    masks = {"patch_mask": torch.ones(6, 5), "token_mask": torch.ones(6, 5)}
    masks["token_mask"][2, 3:] = 0
    plain = dataclasses.replace(views, **masks)
    junk = torch.full((6, 4, DIM), torch.nan)
    longer = dataclasses.replace(
        plain,
        tokens=torch.cat([torch.where(masks["token_mask"][..., None] > 0, views.tokens, torch.inf), junk], 1),
        token_mask=nn.functional.pad(masks["token_mask"], (0, 4)),
        patches=torch.cat([junk, views.patches], 1),
        patch_mask=nn.functional.pad(masks["patch_mask"], (4, 0)),
    )
    expected, found = gradients(objective, plain), gradients(objective, longer)
    torch.testing.assert_close(found["loss"], expected["loss"])
    assert found["tokens"][:, 5:].eq(0).all()
    torch.testing.assert_close(found["patches"][:, 4:], expected["patches"])
    assert not torch.equal(expected["loss"], gradients(objective, views)["loss"])


def test_only_transport_is_bound_to_one_rank():
    """Trap 4: nodes of all ranks may be one batch, except where patches are compared with tokens."""
    assert {case: build(case).scope for case in BASELINES} == {
        "infonce": "global",
        "siglip": "global",
        "optimal_transport": "local",
        "vlap": "global",
    }
    assert all(build(case).scope == "global" for case in MATCHINGS)


@pytest.mark.parametrize("case", [*CASES, "legacy"])
@pytest.mark.parametrize("samples", [1, 2, 3])
def test_small_batches(case: str, samples: int):
    """Trap 5: a last batch of one sample, or of fewer than k + 1, is no error; one sample alone teaches nothing."""
    objective = build("barycenter", legacy=True) if case == "legacy" else build(case)
    views = taking_gradients(random_views(samples))
    result = objective(views)
    result.loss.backward()
    for name in ("image", *objective.needs - {"words"}):
        gradient = getattr(views, name).grad
        # Transport learns from patches and tokens, and only counts with the means.
        assert gradient is None or gradient.isfinite().all(), name
        assert samples > 1 or gradient is None or gradient.eq(0).all(), name
    assert any(getattr(views, name).grad is not None for name in ("image", "patches"))
    for parameter in objective.parameters():
        assert parameter.grad is not None, "data-parallel training waits for every parameter"
        assert parameter.grad.isfinite().all()
    assert (result.loss.item() == 0) if samples == 1 else result.loss.isfinite()
    for name, value in result.metrics.items():
        assert value.shape == (), name
        assert value.isfinite(), name
        assert not value.requires_grad, name
    assert samples > 1 or result.metrics["retrieval"] == 1


def test_missing_neighbours_are_mentioned_once(caplog):
    """Trap 5: a graph that is too small for its neighbours says so."""
    objective = build("barycenter", neighbours=5)
    with caplog.at_level(logging.WARNING):
        for samples in (8, 6, 5, 4):
            objective(random_views(samples))
    assert [record.getMessage() for record in caplog.records] == [
        "BarycenterObjective: a graph of 5 nodes has 4 neighbours per node instead of 5; later ones are not mentioned"
    ]


def repeated_image(samples: int = 6) -> tuple[BatchViews, Tensor]:
    """Samples 0 and 1 show one image and have two similar answers; the views without groups, and the groups."""
    views = random_views(samples, noise=0.05)
    for name in (*VIEWS, "patches", "tokens"):
        value = getattr(views, name)
        value[1] = value[0] if name in ("image", "patches") else value[0] + 0.2 * torch.randn_like(value[0])
    groups = torch.arange(samples).repeat(3, 1)
    groups[0, 1] = 0
    return views, groups


@pytest.mark.parametrize("case", ["infonce", "siglip", "optimal_transport"])
def test_a_repeated_image_is_no_negative(case: str):
    """Trap 8: the answers to two questions about one image are not pushed away from it."""
    objective = build(case) if case == "optimal_transport" else build(case, views=("image", "answer"))
    views, groups = repeated_image()
    # Enough of the scale to see a single pair.
    objective.scale.log_scale.data.fill_(3.0)
    grouped = dataclasses.replace(views, groups=groups)
    assert objective(grouped).loss < 0.9 * objective(views).loss
    assert objective(grouped).metrics["retrieval"] == 1 > objective(views).metrics["retrieval"]


@pytest.mark.parametrize("case", [name for name in MATCHINGS if name != "mean"])
def test_samples_of_one_group_may_be_matched_either_way(case: str):
    """Trap 8: to match an image with the answer to another question about it is no mistake."""
    swap = torch.tensor([1, 0, 2, 3, 4, 5, 6])
    views = random_views(7, noise=0.01)
    views = dataclasses.replace(views, image=views.image[swap])
    groups = torch.arange(7).repeat(3, 1)
    groups[0, 1] = 0
    if CASES[case][0] == "barycenter" and len(build(case).views) > 2:
        # The barycenters of the texts hold the swapped view: they are the same where all their views are.
        groups[1:, 1] = 0
    objective = build(case, neighbours=3).eval()
    grouped, plain = objective(dataclasses.replace(views, groups=groups)), objective(views)
    assert grouped.metrics["retrieval"] == 1 > plain.metrics["retrieval"]
    if "sinkhorn" in case:
        assert grouped.loss < 0.7 * plain.loss
        assert grouped.metrics["matching_accuracy"] > plain.metrics["matching_accuracy"]
    else:
        # The Fenchel-Young loss wants the cheaper one of both, as far as unary costs know it.
        assert grouped.loss.item() <= (0.1 * plain.loss.item() if "fenchel_young" in case else 0)
        assert grouped.metrics["matching_accuracy"] == 1
        assert plain.loss > 1e-3


def test_a_repeated_text_takes_no_more_than_its_part_of_the_words():
    """Trap 8: assignments are those of the batch without repetitions."""
    single = random_views(6)
    times = torch.tensor([0, 0, 0, 1, 2, 3, 4, 5])
    views = selected(single, times)
    groups = times.repeat(3, 1)
    objective = build("vlap", views=("image", "answer"))
    losses = [objective(dataclasses.replace(views, groups=given)).loss.item() for given in (groups, None)]
    # Means over samples: the repeated ones count three times, with the assignments that they have alone.
    alone = objective(single).loss.item()
    first = gradients_of_first(objective, single)
    assert losses[0] == pytest.approx((6 * alone + 2 * first) / 8, rel=1e-5)
    assert abs(losses[1] - losses[0]) > 1e-3


def gradients_of_first(objective: Objective, views: BatchViews) -> float:
    """The part of sample 0 in the loss: what is left if all others are at rest and it counts once."""
    from exgra_adapter.objectives.assignment import assignments

    words = nn.functional.normalize(views.words, dim=-1)
    cosines = [nn.functional.normalize(each, dim=-1) @ words.T for each in (views.image, views.answer)]
    q = [assignments(each / objective.epsilon, None, objective.iterations) for each in cosines]
    p = [(each / objective.temperature).log_softmax(1) for each in cosines]
    return -0.5 * float((q[1][0] * p[0][0] + q[0][0] * p[1][0]).sum())


def test_the_released_recipe_counts_repetitions_as_mistakes():
    """Trap 8: legacy is given no groups, and matches as before."""
    views, groups = repeated_image()
    objective = build("barycenter", legacy=True)
    losses = []
    for given in (groups, None):
        torch.manual_seed(3)
        losses.append(objective(dataclasses.replace(views, groups=given)).loss.item())
    assert losses[0] == losses[1]


def test_a_barycenter_that_holds_the_view_matches_almost_for_free():
    """Trap 13: leave-one-out is the default, and retrieval stands beside the accuracy that tells nothing."""
    views = random_views(32, noise=8.0)
    found = {case: build(case).eval()(views).metrics for case in ("barycenter", "mean")}
    assert found["barycenter"]["matching_accuracy"] < 0.2
    assert found["mean"]["matching_accuracy"] > 0.6
    assert found["mean"]["retrieval"] == found["barycenter"]["retrieval"] < 0.2


def test_silent_steps_are_seen():
    """Trap 14: a matching that is right sends no gradient without noise; the trainer can count such steps."""
    views = random_views(8, noise=0.01)
    silent = {}
    for case in ("blackbox", "negative_identity", "fenchel_young"):
        objective = build(case, dropout=0.0)
        objective(taking_gradients(views)).loss.backward()
        silent[case] = bool(objective.zero_gradient)
    assert silent["blackbox"]
    assert not silent["negative_identity"]
    barely = dataclasses.replace(views, answer=views.answer + 0.8 * torch.randn(8, DIM))
    objective = build("imle", dropout=0.0)
    assert objective.eval()(barely).loss == 0
    objective.train()(taking_gradients(barely)).loss.backward()
    assert not objective.zero_gradient, "noise asks for a margin"


@every_kind
def test_the_order_of_the_samples_does_not_matter(case: str):
    objective = build(case, **few_neighbours(case)).eval()
    groups = torch.arange(7).repeat(3, 1)
    groups[1, 4] = 2
    views = dataclasses.replace(random_views(7, noise=0.6), groups=groups)
    moved = selected(views, torch.tensor([3, 0, 6, 2, 5, 1, 4]))
    expected, found = objective(views), objective(moved)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-4, atol=1e-5)
    for name in expected.metrics.keys() - {"gap"}:
        torch.testing.assert_close(found.metrics[name], expected.metrics[name], rtol=1e-4, atol=1e-5)


@every_kind
def test_a_seed_decides_everything(case: str):
    views = random_views(8)
    first, second = gradients(build(case), views), gradients(build(case), views)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@every_kind
def test_states_are_saved_and_loaded(case: str):
    trained, views = build(case), random_views(8)
    for _ in range(2):
        trained(taking_gradients(views)).loss.backward()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter)).grad = None
    # No tensor may be there twice: safetensors would refuse it.
    state = load(save({name: value.contiguous() for name, value in trained.state_dict().items()}))
    torch.manual_seed(5)
    restored = build_objective(CASES[case][0], DIM, **CASES[case][1])
    restored.load_state_dict(state)
    expected, found = gradients(trained, views), gradients(restored, views)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_half_precision_views_are_computed_in_float32():
    views = random_views(6)
    halves = dataclasses.replace(
        views, **{name: getattr(views, name).bfloat16() for name in (*VIEWS, "patches", "tokens", "words")}
    )
    for case in CASES:
        assert build(case)(halves).loss.dtype == torch.float32, case


@pytest.mark.parametrize("legacy", [False, True])
def test_the_alignment_is_that_of_the_library(legacy: bool):
    views = random_views(8)
    objective = build("barycenter", legacy=legacy, neighbours=3)
    torch.manual_seed(0)
    alignment = gm.BarycenterAlignment(DIM, 3, legacy=legacy)
    torch.manual_seed(2)
    found = objective(views).loss
    torch.manual_seed(2)
    assert torch.equal(found, alignment(views.image, views.answer, views.extended))


random_groups = st.lists(st.lists(st.integers(0, 5), min_size=9, max_size=9), min_size=3, max_size=3)


@hypothesis.given(numbers=random_groups, seed=st.integers(0, 100))
def test_retrieval_is_measured_as_the_library_does(numbers: list[list[int]], seed: int):
    views, groups = random_views(9, noise=0.7, seed=seed), torch.tensor(numbers)
    nodes = {name: getattr(views, name) for name in VIEWS}
    rows = dict(zip(VIEWS, groups, strict=True))
    details = gm.PairwiseAlignment(DIM, 3).details(*nodes.values(), groups=groups)
    assert view_retrieval(nodes, rows).item() == pytest.approx(details.retrieval.item())


@hypothesis.settings(max_examples=25)
@hypothesis.given(
    numbers=random_groups,
    seed=st.integers(0, 100),
    name=st.sampled_from(["barycenter", "mean", "pairwise"]),
    directions=st.sampled_from(["forward", "both"]),
)
def test_all_matchings_accept_the_same_matches(numbers: list[list[int]], seed: int, name: str, directions: str):
    # Without noise the matchings are the same, whatever the gradient: so must be their accuracies.
    views = dataclasses.replace(random_views(9, noise=0.7, seed=seed), groups=torch.tensor(numbers))
    found = [
        build(name, neighbours=3, directions=directions, **options).eval()(views)
        for options in ({}, {"gradient": "fenchel_young"})
    ]
    assert found[1].metrics["matching_accuracy"].item() == pytest.approx(found[0].metrics["matching_accuracy"].item())
