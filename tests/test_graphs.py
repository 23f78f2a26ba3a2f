"""Graphs from points, affinities, and the measures on matchings and features."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import graphmatch as gm

ERROR_FORM = r"^\S.*: .+ must .+; got .+\. \S.*\.$"


@given(st.integers(0, 2**31), st.integers(0, 9), st.integers(0, 6), st.sampled_from([torch.float32, torch.float64]))
def test_nearest_neighbours_are_the_nearest(seed: int, count: int, k: int, dtype: torch.dtype):
    points = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    edges = gm.knn_graph(points, k).edges
    expected = max(min(k, count - 1), 0)
    assert edges.shape == (count * expected, 2)
    assert edges.dtype == torch.int64
    for node in range(count):
        heads = edges[edges[:, 0] == node, 1].tolist()
        distance = (points.double() - points[node].double()).norm(dim=1)
        others = [other for other in range(count) if other != node]
        nearest = sorted(others, key=lambda other: float(distance[other]))[:expected]
        assert len(set(heads)) == expected
        assert node not in heads
        assert [float(distance[head]) for head in heads] == pytest.approx([float(distance[n]) for n in nearest])


def test_close_points_far_from_the_origin_keep_their_order():
    points = 1000.0 + torch.tensor([[0.0], [0.01], [0.03], [0.07]])
    assert gm.knn_graph(points, 1).edges.tolist() == [[0, 1], [1, 0], [2, 1], [3, 2]]


def test_a_batch_of_graphs_is_its_graphs_one_by_one(rng: torch.Generator):
    points = torch.randn(3, 7, 2, generator=rng)
    batched = gm.knn_graph(points, 3).edges
    assert torch.equal(batched, torch.stack([gm.knn_graph(each, 3).edges for each in points]))
    assert torch.equal(gm.complete_graph(points).edges[1], gm.complete_graph(points[1]).edges)
    features = gm.edge_features(points, batched)
    assert torch.equal(features[2], gm.edge_features(points[2], batched[2]))


def test_half_precision_points_are_compared_in_single_precision():
    points = torch.tensor([[0.0], [1.0], [2.0], [2.5]], dtype=torch.bfloat16)
    assert torch.equal(gm.knn_graph(points, 2).edges, gm.knn_graph(points.float(), 2).edges)


def test_complete_graphs_join_all_ordered_pairs():
    edges = gm.complete_graph(torch.zeros(5, 1)).edges
    assert sorted(map(tuple, edges.tolist())) == [(i, j) for i in range(5) for j in range(5) if i != j]
    assert gm.complete_graph(torch.zeros(0, 1)).edges.shape == (0, 2)


def test_edge_features_are_unit_differences(rng: torch.Generator):
    nodes = torch.randn(6, 4, generator=rng, requires_grad=True)
    edges = torch.tensor([[0, 1], [3, 2], [5, 5]])
    features = gm.edge_features(nodes, edges)
    difference = (nodes[0] - nodes[1]) / (nodes[0] - nodes[1]).norm()
    torch.testing.assert_close(features[0], difference)
    assert features[2].eq(0).all()
    features.sum().backward()
    assert nodes.grad is not None
    assert nodes.grad[4].eq(0).all()
    assert nodes.grad[0].ne(0).any()


def test_cosines_lie_between_minus_one_and_one_whatever_the_lengths(rng: torch.Generator):
    left = torch.randn(2, 5, 3, generator=rng) * 1e10
    right = torch.randn(2, 4, 3, generator=rng) * 1e-10
    affinity = gm.cosine_affinity(left, right)
    expected = torch.nn.functional.cosine_similarity(left[:, :, None], right[:, None] * 1e10, dim=-1)
    torch.testing.assert_close(affinity, expected)
    assert gm.cosine_affinity(torch.zeros(1, 3), torch.ones(1, 3)).item() == 0


def test_hamming_loss_counts_both_kinds_of_error():
    wrong = torch.eye(4)[[1, 2, 3, 0]][None]
    assert gm.hamming_loss(torch.eye(4)[None], torch.eye(4)) == 0
    assert gm.hamming_loss(wrong, torch.eye(4)) == 2
    assert gm.hamming_loss(torch.zeros(1, 4, 4), torch.eye(4)) == 1  # unmatched nodes only miss their target
    assert gm.hamming_loss(torch.cat([wrong, torch.eye(4)[None]]), torch.eye(4)) == 1
    assert gm.hamming_loss(torch.zeros(0, 4, 4), torch.eye(4)) == 0
    assert gm.hamming_loss(torch.zeros(2, 0, 0), torch.zeros(0, 0)) == 0


def test_hamming_loss_accepts_any_of_several_targets():
    target = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert gm.hamming_loss(torch.eye(3)[[1, 0, 2]][None], target) == 0
    assert gm.hamming_loss(torch.eye(3)[[1, 2, 0]][None], target).item() == pytest.approx(4 / 3)


def test_masked_means_ignore_padding_even_if_it_is_nan():
    hidden = torch.tensor([[[1.0], [3.0], [math.nan]], [[math.inf], [2.0], [4.0]]])
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    assert gm.masked_mean(hidden, mask).tolist() == [[2.0], [3.0]]
    half = gm.masked_mean(torch.full((1, 5000, 1), 100.0, dtype=torch.float16), torch.ones(1, 5000))
    assert half.dtype == torch.float16
    assert half.item() == 100  # the sum would overflow


def test_retrieval_accuracy(rng: torch.Generator):
    keys = torch.randn(50, 8, generator=rng)
    assert gm.retrieval_accuracy(3 * keys, keys) == 1
    assert gm.retrieval_accuracy(keys, keys.roll(1, 0)) == 0
    assert gm.retrieval_accuracy(torch.ones(50, 8), torch.ones(50, 8)).item() == pytest.approx(1 / 50)
    assert gm.retrieval_accuracy(keys[:0], keys[:0]).isnan()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: gm.knn_graph(torch.zeros(3), 1), ValueError),
        (lambda: gm.knn_graph([[0.0]], 1), TypeError),
        (lambda: gm.knn_graph(torch.zeros(3, 2, dtype=torch.int64), 1), TypeError),
        (lambda: gm.knn_graph(torch.full((3, 2), math.nan), 1), ValueError),
        (lambda: gm.knn_graph(torch.zeros(3, 2), -1), ValueError),
        (lambda: gm.complete_graph(torch.zeros(3)), ValueError),
        (lambda: gm.edge_features(torch.zeros(3, 2), torch.zeros(4, 2)), TypeError),
        (lambda: gm.edge_features(torch.zeros(3, 2), torch.zeros(4, 3, dtype=torch.int64)), ValueError),
        (lambda: gm.edge_features(torch.zeros(1, 3, 2), torch.zeros(4, 2, dtype=torch.int64)), ValueError),
        (lambda: gm.cosine_affinity(torch.zeros(3, 2), torch.zeros(3, 4)), ValueError),
        (lambda: gm.cosine_affinity(torch.zeros(1, 3, 2), torch.zeros(3, 2)), ValueError),
        (lambda: gm.hamming_loss(torch.zeros(3, 3), torch.eye(3)), ValueError),
        (lambda: gm.masked_mean(torch.zeros(2, 3), torch.zeros(2, 3)), ValueError),
        (lambda: gm.masked_mean(torch.zeros(2, 3, 1), torch.zeros(2, 4)), ValueError),
        (lambda: gm.masked_mean(torch.zeros(2, 3, 1), torch.tensor([[1, 0, 0], [0, 0, 0]])), ValueError),
        (lambda: gm.retrieval_accuracy(torch.zeros(2, 3), torch.zeros(3, 3)), ValueError),
    ],
)
def test_errors_say_what_to_do(call, error: type[Exception]):
    with pytest.raises(error, match=ERROR_FORM):
        call()
