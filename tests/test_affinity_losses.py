"""Affinities, losses and measures."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

import graphmatch as gm

ERROR_FORM = r"^\S.*: .+ must .+; got .+\. \S.*\.$"


@pytest.mark.parametrize("batch", [(), (3,)], ids=["one graph", "batch"])
def test_edge_features(rng: torch.Generator, batch: tuple[int, ...]):
    nodes = torch.randn(*batch, 5, 4, generator=rng)
    edges = torch.randint(5, (*batch, 9, 2), generator=rng)
    features = gm.edge_features(nodes, edges)
    for index in range(batch[0] if batch else 1):
        ends = nodes[index] if batch else nodes
        pairs = edges[index] if batch else edges
        expected = F.normalize(ends[pairs[:, 0]] - ends[pairs[:, 1]], dim=-1)
        torch.testing.assert_close(features[index] if batch else features, expected)
    flipped = gm.edge_features(nodes, edges.flip(-1))
    torch.testing.assert_close(flipped, -features)


@pytest.mark.parametrize("neighbours", [None, 1])
def test_edges_between_equal_nodes_have_neither_direction_nor_gradient(neighbours: int | None):
    nodes = torch.ones(2, 3, requires_grad=True)
    features = gm.edge_features(nodes, torch.tensor([[0, 1], [1, 1]]), neighbours)
    assert features.eq(0).all()
    features[:, 0].sum().backward()
    assert nodes.grad is not None
    assert nodes.grad.eq(0).all()


@pytest.mark.parametrize("shape", [(6, 4), (3, 6, 4)], ids=["one graph", "batch"])
def test_equally_many_neighbours_give_the_same_features_and_gradients(rng: torch.Generator, shape: tuple[int, ...]):
    nodes = torch.randn(shape, generator=rng, dtype=torch.float64, requires_grad=True)
    edges = gm.knn_graph(nodes, 2).edges
    found, expected = gm.edge_features(nodes, edges, 2), gm.edge_features(nodes, edges)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn(found.shape, generator=rng, dtype=torch.float64)
    gradients = (torch.autograd.grad(each, nodes, upstream)[0] for each in (found, expected))
    torch.testing.assert_close(*gradients)
    assert torch.autograd.gradcheck(lambda each: gm.edge_features(each, edges, 2), (nodes,))


@pytest.mark.parametrize("batch", [(), (3,)], ids=["one set", "batch"])
def test_cosine_affinity(rng: torch.Generator, batch: tuple[int, ...]):
    left, right = torch.randn(*batch, 4, 6, generator=rng), torch.randn(*batch, 5, 6, generator=rng)
    expected = F.cosine_similarity(left[..., :, None, :], right[..., None, :, :], dim=-1)
    torch.testing.assert_close(gm.cosine_affinity(left, right), expected)
    torch.testing.assert_close(gm.cosine_affinity(7 * left, right / 3), expected)
    assert gm.cosine_affinity(left, 0 * right).eq(0).all()


def test_cosines_lie_between_minus_one_and_one_whatever_the_lengths(rng: torch.Generator):
    left = torch.randn(2, 5, 3, generator=rng) * 1e10
    right = torch.randn(2, 4, 3, generator=rng) * 1e-10
    affinity = gm.cosine_affinity(left, right)
    expected = torch.nn.functional.cosine_similarity(left[:, :, None], right[:, None] * 1e10, dim=-1)
    torch.testing.assert_close(affinity, expected)
    assert gm.cosine_affinity(torch.zeros(1, 3), torch.ones(1, 3)).item() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hamming_loss_counts_wrong_and_missing_pairs(dtype: torch.dtype):
    target = torch.eye(4)
    matchings = torch.stack([torch.eye(4), torch.eye(4)[[1, 0, 2, 3]], torch.eye(4)[[1, 2, 3, 0]]]).to(dtype)
    assert [gm.hamming_loss(each[None], target).item() for each in matchings] == [0, 1, 2]
    assert gm.hamming_loss(matchings, target).item() == 1
    empty = torch.zeros(1, 4, 4, dtype=dtype)
    assert gm.hamming_loss(empty, target).item() == 1, "unmatched nodes miss their target and are not wrong"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_hamming_loss_of_half_precision_survives_loss_scaling(dtype: torch.dtype):
    nodes = 64
    matching = torch.eye(nodes).roll(1, 1).to(dtype).expand(48, -1, -1).clone().requires_grad_()
    loss = gm.hamming_loss(matching, torch.eye(nodes))
    (65536 * loss).backward()
    assert loss.item() == 2.0
    assert matching.grad is not None
    expected = 65536 / (48 * nodes) * (1 - 2 * torch.eye(nodes))
    torch.testing.assert_close(matching.grad, expected.to(dtype).expand_as(matching))


def test_hamming_loss_accepts_any_of_several_targets():
    target = torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]])
    assert gm.hamming_loss(torch.eye(3)[None], target).item() == 0
    assert gm.hamming_loss(torch.eye(3)[[1, 0, 2]][None], target).item() == 0
    assert gm.hamming_loss(torch.eye(3)[[1, 2, 0]][None], target).item() == pytest.approx(4 / 3)


def test_hamming_loss_ignores_nodes_without_a_target():
    target = torch.tensor([[1.0, 0], [0, 0]])
    assert gm.hamming_loss(torch.tensor([[[1.0, 0], [0, 0]]]), target).item() == 0
    assert gm.hamming_loss(torch.tensor([[[0.0, 1], [0, 0]]]), target).item() == 2


def test_hamming_loss_of_the_nodes_in_a_mask():
    target = torch.eye(3)
    matching = torch.eye(3)[[0, 2, 1]].expand(2, 3, 3).clone().requires_grad_()
    assert gm.hamming_loss(matching, target, torch.tensor([True, True, False])).item() == 1
    mask = torch.tensor([[True, False, False], [True, True, True]])
    loss = gm.hamming_loss(matching, target, mask)
    assert loss.item() == 1
    loss.backward()
    assert matching.grad[~mask].eq(0).all()
    assert matching.grad[mask].ne(0).all()
    assert gm.hamming_loss(matching, target, torch.zeros(3, dtype=torch.bool)).item() == 0
    with pytest.raises(ValueError, match=ERROR_FORM):
        gm.hamming_loss(matching, target, torch.ones(2, dtype=torch.bool))
    with pytest.raises(TypeError, match=ERROR_FORM):
        gm.hamming_loss(matching, target, torch.ones(3))


def test_hamming_loss_is_linear_in_the_matching(rng: torch.Generator):
    matching = torch.rand(2, 3, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    gm.hamming_loss(matching, torch.eye(3)).backward()
    expected = torch.where(torch.eye(3, dtype=torch.bool), -1.0, 1.0).double() / 6
    torch.testing.assert_close(matching.grad, expected.expand(2, 3, 3))


@pytest.mark.parametrize("shape", [(0, 3, 3), (2, 0, 0), (2, 3, 0), (2, 0, 3)], ids=str)
def test_hamming_loss_of_nothing_is_zero(shape: tuple[int, int, int]):
    matching = torch.zeros(shape, requires_grad=True)
    loss = gm.hamming_loss(matching, torch.zeros(shape[1:]))
    assert loss.item() == 0
    loss.backward()
    assert matching.grad.shape == shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("mask_dtype", [torch.bool, torch.int64, torch.float32])
def test_masked_mean(rng: torch.Generator, dtype: torch.dtype, mask_dtype: torch.dtype):
    hidden = torch.randn(3, 5, 2, generator=rng).to(dtype)
    mask = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 1, 1, 1], [1, 0, 1, 0, 1]])
    expected = torch.stack([hidden[i, mask[i].bool()].double().mean(0) for i in range(3)])
    hidden[mask == 0] = torch.nan
    mean = gm.masked_mean(hidden, mask.to(mask_dtype))
    assert mean.dtype == dtype
    torch.testing.assert_close(mean, expected.to(dtype))


def test_masked_mean_of_long_half_precision_texts_does_not_overflow():
    hidden = torch.full((1, 4000, 1), 100.0, dtype=torch.float16)
    assert gm.masked_mean(hidden, torch.ones(1, 4000)).item() == 100


def test_masked_mean_sends_no_gradient_to_padding():
    hidden = torch.ones(1, 3, 2, requires_grad=True)
    gm.masked_mean(hidden, torch.tensor([[1, 1, 0]])).sum().backward()
    assert hidden.grad.tolist() == [[[0.5, 0.5], [0.5, 0.5], [0, 0]]]


def test_masked_mean_of_no_texts():
    assert gm.masked_mean(torch.zeros(0, 3, 2), torch.zeros(0, 3)).shape == (0, 2)


def test_retrieval_accuracy(rng: torch.Generator):
    points = torch.randn(20, 8, generator=rng)
    noisy = 3 * points + 0.01 * torch.randn(20, 8, generator=rng)
    assert gm.retrieval_accuracy(points, noisy).item() == 1
    assert gm.retrieval_accuracy(points, noisy.roll(1, 0)).item() == 0
    half = torch.cat([noisy[:10], noisy[10:].flip(0)])
    assert gm.retrieval_accuracy(points, half).item() == 0.5
    assert gm.retrieval_accuracy(points, torch.ones(20, 8)).item() == pytest.approx(0.05), "collapsed keys are chance"


def test_retrieval_accuracy_of_nothing():
    assert gm.retrieval_accuracy(torch.zeros(0, 3), torch.zeros(0, 3)).isnan()
    assert gm.retrieval_accuracy(torch.ones(1, 3), torch.ones(1, 3)).item() == 1


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: gm.edge_features(torch.zeros(3, 2), torch.zeros(4, 2)), TypeError),
        (lambda: gm.edge_features(torch.zeros(3, 2), torch.zeros(4, 3, dtype=torch.int64)), ValueError),
        (lambda: gm.edge_features(torch.zeros(1, 3, 2), torch.zeros(4, 2, dtype=torch.int64)), ValueError),
        (lambda: gm.edge_features(torch.zeros(3, 2), [[0, 1]]), TypeError),
        (lambda: gm.edge_features(torch.zeros(3, 2), torch.zeros(4, 2, dtype=torch.int64), 2), ValueError),
        (lambda: gm.cosine_affinity(torch.zeros(3, 2), torch.zeros(3, 4)), ValueError),
        (lambda: gm.cosine_affinity(torch.zeros(1, 3, 2), torch.zeros(3, 2)), ValueError),
        (lambda: gm.hamming_loss(torch.zeros(3, 3), torch.eye(3)), ValueError),
        (lambda: gm.hamming_loss([[0.0]], torch.eye(3)), TypeError),
        (lambda: gm.hamming_loss(torch.zeros(2, 3, 3), [0, 1, 2]), TypeError),
        (lambda: gm.hamming_loss(torch.zeros(2, 3, 4), torch.zeros(4, 3)), ValueError),
        (lambda: gm.hamming_loss(torch.zeros(2, 3, 4), torch.zeros(3, 3, 4)), ValueError),
        (lambda: gm.hamming_loss(torch.zeros(2, 3, 4), torch.zeros(4)), ValueError),
        (lambda: gm.retrieval_accuracy(torch.zeros(3), torch.zeros(3)), ValueError),
        (lambda: gm.retrieval_accuracy(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)), ValueError),
        (lambda: gm.masked_mean(torch.zeros(2, 3), torch.ones(2, 3)), ValueError),
        (lambda: gm.masked_mean(torch.zeros(2, 3, 1), torch.ones(2, 4)), ValueError),
        (lambda: gm.masked_mean(torch.zeros(2, 3, 1), torch.tensor([[1, 0, 0], [0, 0, 0]])), ValueError),
        (lambda: gm.masked_mean(None, torch.ones(2, 3)), TypeError),
        (lambda: gm.retrieval_accuracy(torch.zeros(3, 2), torch.zeros(4, 2)), ValueError),
    ],
)
def test_bad_input(call: Callable, error: type[Exception]):
    with pytest.raises(error, match=ERROR_FORM):
        call()


def test_masked_mean_names_the_empty_text():
    mask = torch.tensor([[1, 0], [1, 1], [0, 0]])
    with pytest.raises(ValueError, match="none in text 2"):
        gm.masked_mean(torch.full((3, 2, 1), math.nan), mask)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_zero_vectors_have_no_direction_in_any_type(dtype: torch.dtype):
    nodes = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=dtype)
    features = gm.edge_features(nodes, torch.tensor([[0, 0], [0, 1]]))
    assert features[0].tolist() == [0, 0]
    assert gm.cosine_affinity(torch.zeros(1, 2, dtype=dtype), nodes).tolist() == [[0, 0]]
