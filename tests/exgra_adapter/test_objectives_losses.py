"""The formulas of the baselines, against definitions written out and against another library's transport."""

from __future__ import annotations

import math

import hypothesis
import numpy as np
import ot
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from exgra_adapter.objectives import BatchViews, build_objective
from exgra_adapter.objectives.assignment import assignments
from exgra_adapter.objectives.base import accepted_pairs
from exgra_adapter.objectives.transport import pool, transport_similarity

DIM = 6


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def three_views(samples: int = 5) -> dict[str, Tensor]:
    return {name: normal(samples, DIM, seed=place) for place, name in enumerate(("image", "answer", "extended"))}


PAIRS = (("image", "answer"), ("image", "extended"), ("answer", "extended"))
GROUPS = torch.tensor([[0, 0, 1, 2, 3], [0, 1, 2, 2, 3], [0, 1, 2, 3, 4]])
# Which pairs (i, j) are no mismatch: images 0 and 1 are the same, answers 2 and 3.
SAME = {
    ("image", "answer"): {(0, 1), (1, 0), (2, 3), (3, 2)},
    ("image", "extended"): {(0, 1), (1, 0)},
    ("answer", "extended"): {(2, 3), (3, 2)},
}


@pytest.mark.parametrize("grouped", [False, True])
def test_infonce_is_its_formula(grouped: bool):
    views = three_views()
    losses = []
    for pair in PAIRS:
        left, right = (F.normalize(views[name], dim=1) for name in pair)
        skipped = SAME[pair] if grouped else set()
        exponentials = {
            (i, j): math.exp(float(left[i] @ right[j]) / 0.2)
            for i in range(5)
            for j in range(5)
            if (i, j) not in skipped
        }
        for i in range(5):
            row = sum(value for (a, _), value in exponentials.items() if a == i)
            column = sum(value for (_, b), value in exponentials.items() if b == i)
            losses += [-math.log(exponentials[i, i] / row), -math.log(exponentials[i, i] / column)]
    objective = build_objective("infonce", DIM, temperature=0.2)
    result = objective(BatchViews(**views, groups=GROUPS if grouped else None))
    assert result.loss.item() == pytest.approx(float(np.mean(losses)), rel=1e-6)
    assert result.metrics["temperature"].item() == pytest.approx(0.2)


@pytest.mark.parametrize("grouped", [False, True])
def test_siglip_is_its_formula(grouped: bool):
    views = three_views()
    total = 0.0
    for pair in PAIRS:
        left, right = (F.normalize(views[name], dim=1) for name in pair)
        for i in range(5):
            for j in range(5):
                sign = 1 if i == j or (grouped and (i, j) in SAME[pair]) else -1
                logit = sign * (float(left[i] @ right[j]) / 0.1 - 10)
                total += math.log1p(math.exp(-logit)) / 5 / 3
    objective = build_objective("siglip", DIM)
    result = objective(BatchViews(**views, groups=GROUPS if grouped else None))
    assert result.loss.item() == pytest.approx(total, rel=1e-6)


def test_a_pair_of_one_group_sends_no_gradient():
    """Trap 8: what is left out of the negatives is left out of the gradient."""
    image = torch.eye(4, requires_grad=True)
    answer = torch.eye(4, requires_grad=True)
    groups = torch.tensor([[0, 0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3]])
    objective = build_objective("infonce", 4, views=("image", "answer"))
    objective(BatchViews(image, answer, groups=groups)).loss.backward()
    assert answer.grad[1, 0] == 0
    assert answer.grad[2, 0] > 0, "descent leads away from other images"


def test_the_scale_stays_below_its_limit_and_can_come_back():
    nodes = torch.eye(4)
    objective = build_objective("infonce", 4, views=("image", "answer"))
    with torch.no_grad():
        objective.scale.log_scale.fill_(20.0)
    wrong = objective(BatchViews(nodes, nodes.roll(1, 0)))
    assert wrong.metrics["temperature"].item() == pytest.approx(0.01)
    wrong.loss.backward()
    assert objective.scale.log_scale.grad > 0


random_groups = st.lists(st.integers(0, 3), min_size=6, max_size=6)


@hypothesis.given(left=random_groups, right=random_groups)
def test_accepted_pairs_are_those_with_a_witness(left: list[int], right: list[int]):
    found = accepted_pairs(torch.tensor(left), torch.tensor(right), torch.zeros(6, 1))
    for i in range(6):
        for j in range(6):
            assert found[i, j] == any(left[i] == left[k] and right[k] == right[j] for k in range(6))


def masked_parts(samples: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    patch_mask, token_mask = torch.ones(samples, 7).bool(), torch.ones(samples, 5).bool()
    patch_mask[0, 4:] = False
    token_mask[1, 2:] = False
    return normal(samples, 7, DIM), patch_mask, normal(samples, 5, DIM, seed=1), token_mask


@pytest.mark.parametrize("epsilon", [0.05, 0.1, 1.0])
def test_transport_is_that_of_another_library(epsilon: float):
    patches, patch_mask, tokens, token_mask = masked_parts()
    found = transport_similarity(patches, patch_mask, tokens, token_mask, epsilon, iterations=2000)
    for i in range(3):
        for j in range(3):
            left, right = patches[i][patch_mask[i]], tokens[j][token_mask[j]]
            cosines = (F.normalize(left, dim=1) @ F.normalize(right, dim=1).T).numpy()
            masses = (np.full(count, 1 / count) for count in cosines.shape)
            plan = ot.sinkhorn(*masses, 1 - cosines, epsilon, numItermax=10000, stopThr=1e-12)
            assert found[i, j].item() == pytest.approx((plan * cosines).sum(), abs=1e-6)


def test_the_gradient_of_transport_takes_the_plan_as_a_constant():
    patches, patch_mask, tokens, token_mask = masked_parts()
    left, right = F.normalize(patches, dim=2).requires_grad_(), F.normalize(tokens, dim=2)
    transport_similarity(left, patch_mask, right, token_mask, 0.1, 500)[1, 2].backward()
    cosines = (left[1] @ right[2].T).detach().numpy()
    plan = ot.sinkhorn(np.full(7, 1 / 7), np.full(5, 1 / 5), 1 - cosines, 0.1, numItermax=10000, stopThr=1e-12)
    pulled = torch.from_numpy(plan) @ right[2]
    # Normalised once more inside: what points along the patch itself is gone.
    along = (pulled * left[1]).sum(1, keepdim=True) * left[1]
    torch.testing.assert_close(left.grad[1], (pulled - along).detach(), rtol=1e-5, atol=1e-7)
    assert left.grad[[0, 2]].eq(0).all()


@pytest.mark.parametrize("most_entries", [1, 250])
def test_blocks_of_images_change_nothing(most_entries: int):
    patches, patch_mask, tokens, token_mask = masked_parts(5)
    found = []
    for limit in (2**24, most_entries):
        leaves = [each.clone().requires_grad_() for each in (patches, tokens)]
        similarity = transport_similarity(leaves[0], patch_mask, leaves[1], token_mask, 0.1, 20, limit)
        (similarity * normal(5, 5, seed=3)).sum().backward()
        found.append([similarity.detach(), *(leaf.grad for leaf in leaves)])
    for whole, blocks in zip(*found, strict=True):
        torch.testing.assert_close(whole, blocks)


def test_blocks_bound_the_memory_of_the_backward_pass():
    patches, tokens = torch.randn(8, 32, 16, requires_grad=True), torch.randn(8, 64, 16, requires_grad=True)
    mask = torch.ones(8, 64).bool()
    stored: list[int] = []
    for limit in (2**24, 8 * 32 * 64):
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: (sizes.append(tensor.numel()), tensor)[1], lambda tensor: tensor
        ):
            transport_similarity(patches, mask[:, :32], tokens, mask, 0.1, 3, limit)
        stored.append(max(sizes))
    assert stored[0] >= 8 * 8 * 32 * 64, "all plans"
    assert stored[1] <= 8 * 64 * 16, "inputs and potentials"


def test_a_grid_of_patches_is_pooled_to_a_grid():
    patches, mask = normal(2, 64, DIM), torch.ones(2, 64).bool()
    pooled, kept = pool(patches, mask, 16)
    grid = patches.mT.reshape(2, DIM, 8, 8)
    torch.testing.assert_close(pooled, F.avg_pool2d(grid, 2).flatten(2).mT)
    assert kept.all()
    assert pool(patches, mask, 64)[0] is patches


def test_other_patches_are_pooled_to_pieces_and_padding_is_left_out():
    patches, mask = normal(2, 10, DIM), torch.ones(2, 10).bool()
    mask[1, :2], mask[1, 2] = False, False
    pooled, kept = pool(patches, mask, 5)
    torch.testing.assert_close(pooled[0], patches[0].reshape(5, 2, DIM).mean(1))
    torch.testing.assert_close(pooled[1, 1], patches[1, 3])
    assert kept.tolist() == [[True] * 5, [False, True, True, True, True]]


def test_images_of_many_patches_are_pooled_before_transport():
    objective = build_objective("optimal_transport", DIM, max_patches=4)
    views = three_views()
    patches, tokens = normal(5, 16, DIM), normal(5, 3, DIM, seed=1)
    whole = objective(BatchViews(**views, patches=patches, tokens=tokens)).loss
    pooled = pool(patches, torch.ones(5, 16).bool(), 4)[0]
    torch.testing.assert_close(objective(BatchViews(**views, patches=pooled, tokens=tokens)).loss, whole)


def test_assignments_are_a_transport_plan():
    scores = normal(7, 20)
    found = assignments(scores, None, iterations=200)
    plan = ot.sinkhorn(np.full(7, 1 / 7), np.full(20, 1 / 20), -scores.numpy(), 1.0, stopThr=1e-14)
    torch.testing.assert_close(found, torch.from_numpy(7 * plan), rtol=1e-6, atol=1e-9)


def test_few_sweeps_spread_samples_over_words():
    # All prefer the same word; each keeps the part of it that belongs to it.
    scores = 5 * torch.eye(4)[:, :1].T.expand(4, 4) + 0.1 * normal(4, 4)
    raw, balanced = scores.softmax(1), assignments(scores, None, iterations=3)
    assert raw.sum(0).max() > 3.5
    assert balanced.sum(0).max() < 1.2
    torch.testing.assert_close(balanced.sum(1), torch.ones(4, dtype=torch.float64))


def test_assignment_prediction_is_its_formula():
    views, words = three_views(), normal(9, DIM, seed=8)
    cosines = {name: F.normalize(each, dim=1) @ F.normalize(words, dim=1).T for name, each in views.items()}
    p = {name: (each / 0.1).log_softmax(1) for name, each in cosines.items()}
    q = {name: assignments(each / 0.05, None, 3) for name, each in cosines.items()}
    expected = sum(
        -(q[text][i] @ p["image"][i] + q["image"][i] @ p[text][i]) / 2 / 5 / 2
        for text in ("answer", "extended")
        for i in range(5)
    )
    words.requires_grad_()
    result = build_objective("vlap", DIM)(BatchViews(**views, words=words))
    torch.testing.assert_close(result.loss, expected.detach())
    assert not result.loss.requires_grad, "words are frozen"


def test_a_large_vocabulary_is_cut_by_the_seed():
    views, words = three_views(), normal(50, DIM, seed=8)
    losses = [
        build_objective("vlap", DIM, max_words=10, seed=seed)(BatchViews(**views, words=words)).loss.item()
        for seed in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]
    few = build_objective("vlap", DIM, max_words=50)(BatchViews(**views, words=words)).loss
    assert few.item() == build_objective("vlap", DIM)(BatchViews(**views, words=words)).loss.item()
