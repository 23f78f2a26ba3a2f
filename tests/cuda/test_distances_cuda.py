"""Distances between points on a GPU are those of the points, and graphs are the CPU's."""

from __future__ import annotations

import pytest
import torch

import graphmatch as gm
from graphmatch import _distance_ops

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 64, 4096), (2, 7, 5), (1, 1, 3), (5, 130, 33), (2, 0, 4), (0, 3, 3), (2, 5, 0)])
def test_distances_are_those_of_the_points(shape: tuple[int, int, int], dtype: torch.dtype):
    points = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    found = _distance_ops.distances(points.cuda())
    differences = points.double()[:, :, None] - points.double()[:, None]
    expected = differences.norm(dim=-1).to(dtype)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-5 if dtype == torch.float32 else 1e-13, atol=0)
    assert torch.equal(found, found.mT)
    assert bool((found.diagonal(dim1=1, dim2=2) == 0).all())


def test_close_points_keep_their_distance():
    points = torch.full((1, 2, 256), 1000.0)
    points[0, 1, 7] += 0.001
    distance = _distance_ops.distances(points.cuda())[0, 0, 1]
    assert float(distance) == float(points[0, 1, 7] - points[0, 0, 7]) > 0


def test_values_that_are_no_numbers_reach_their_distances_only():
    points = torch.randn(1, 9, 70)
    points[0, 4, 3] = torch.nan
    found = _distance_ops.distances(points.cuda())[0].cpu()
    known = torch.arange(9) != 4
    assert bool(found[known][:, known].isfinite().all())
    assert bool(found[4, known].isnan().all())


def test_neighbours_are_those_of_the_cpu():
    points = torch.randn(4, 50, 300, generator=torch.Generator().manual_seed(1))
    assert torch.equal(gm.knn_graph(points.cuda(), 5).edges.cpu(), gm.knn_graph(points, 5).edges)


def test_points_that_are_not_contiguous():
    points = torch.randn(2, 30, 9).cuda()
    assert torch.equal(_distance_ops.distances(points.mT), _distance_ops.distances(points.mT.contiguous()))


def test_under_vmap():
    points = torch.randn(3, 2, 6, 80).cuda()
    together = torch.func.vmap(_distance_ops.distances)(points)
    assert torch.equal(together, torch.stack([_distance_ops.distances(each) for each in points]))
