"""Graphs from points."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import graphmatch as gm

ERROR_FORM = r"^\S.*: .+ must .+; got .+\. \S.*\.$"


@given(
    seed=st.integers(0, 2**31),
    count=st.integers(0, 8),
    k=st.integers(0, 10),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    duplicates=st.booleans(),
)
def test_neighbours_are_the_nearest(seed: int, count: int, k: int, dtype: torch.dtype, duplicates: bool):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(2, count, 3, generator=generator).to(dtype)
    if duplicates and count:
        points[:, count // 2 :] = points[:, :1]
    graph = gm.knn_graph(points, k)
    degree = max(min(k, count - 1), 0)
    assert graph.nodes is points
    assert graph.edges.shape == (2, count * degree, 2)
    assert graph.edges.dtype == torch.int64
    exact = points.double()
    for b in range(2):
        distances = torch.cdist(exact[b], exact[b], compute_mode="donot_use_mm_for_euclid_dist")
        for i in range(count):
            own = graph.edges[b, i * degree : (i + 1) * degree]
            heads = own[:, 1]
            assert own[:, 0].eq(i).all(), "edges are grouped by their origin"
            assert i not in heads.tolist()
            assert len(set(heads.tolist())) == degree
            found = distances[i, heads]
            others = torch.cat([distances[i, :i], distances[i, i + 1 :]]).sort().values
            torch.testing.assert_close(found, others[:degree], rtol=1e-5, atol=1e-6)


def test_close_points_far_from_the_origin_keep_their_order():
    # |x|^2 + |y|^2 - 2xy would see distances of zero here.
    points = 1000 + torch.tensor([[0.0], [0.01], [0.03], [0.07]])
    assert gm.knn_graph(points, 1).edges.tolist() == [[0, 1], [1, 0], [2, 1], [3, 2]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances_that_overflow_make_no_loops(dtype: torch.dtype):
    points = torch.tensor([[1e30], [-1e30], [0.0]], dtype=dtype)
    edges = gm.knn_graph(points, 2).edges
    assert (edges[:, 0] != edges[:, 1]).all()


@pytest.mark.parametrize("exponent", [-110, -70, 70, 110])
def test_neighbours_do_not_depend_on_the_unit(exponent: int, rng: torch.Generator):
    points = torch.randn(2, 30, 3, generator=rng)
    scaled = points * torch.tensor([2.0**exponent, 1.0])[:, None, None]
    assert gm.knn_graph(scaled, 5).edges.equal(gm.knn_graph(points, 5).edges)


def test_one_graph_is_a_batch_of_one(rng: torch.Generator):
    points = torch.randn(7, 2, generator=rng)
    assert torch.equal(gm.knn_graph(points, 3).edges, gm.knn_graph(points[None], 3).edges[0])


def test_graphs_take_points_with_gradients(rng: torch.Generator):
    points = torch.randn(7, 2, generator=rng, requires_grad=True)
    graph = gm.knn_graph(points, 3)
    assert graph.nodes is points
    assert not graph.edges.requires_grad


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_complete_graphs(count: int):
    graph = gm.complete_graph(torch.zeros(3, count, 2))
    expected = [[i, j] for i in range(count) for j in range(count) if i != j]
    assert graph.edges.tolist() == [expected] * 3
    assert gm.complete_graph(torch.zeros(count, 2)).edges.tolist() == expected


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: gm.knn_graph([[0.0]], 1), TypeError),
        (lambda: gm.knn_graph(torch.zeros(4), 1), ValueError),
        (lambda: gm.knn_graph(torch.zeros(1, 1, 4, 2), 1), ValueError),
        (lambda: gm.knn_graph(torch.zeros(4, 2, dtype=torch.int64), 1), TypeError),
        (lambda: gm.knn_graph(torch.zeros(4, 2), -1), ValueError),
        (lambda: gm.knn_graph(torch.zeros(4, 2), 1.5), TypeError),
        (lambda: gm.knn_graph(torch.tensor([[0.0], [math.nan]]), 1), ValueError),
        (lambda: gm.knn_graph(torch.tensor([[0.0], [math.inf]]), 1), ValueError),
        (lambda: gm.complete_graph(torch.zeros(4)), ValueError),
        (lambda: gm.complete_graph(None), TypeError),
    ],
)
def test_bad_points(call: Callable, error: type[Exception]):
    with pytest.raises(error, match=ERROR_FORM):
        call()
