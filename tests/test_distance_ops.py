"""Distances between points as an operator, on the CPU."""

from __future__ import annotations

import pytest
import torch

from graphmatch import _distance_ops


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances_are_those_of_the_points(dtype: torch.dtype):
    points = torch.randn(3, 7, 5, dtype=dtype, generator=torch.Generator().manual_seed(0))
    expected = (points[:, :, None] - points[:, None]).norm(dim=-1)
    torch.testing.assert_close(_distance_ops.distances(points), expected)


def test_close_points_keep_their_distance():
    points = torch.full((1, 2, 4), 1000.0)
    points[0, 1, 2] += 0.001
    assert float(_distance_ops.distances(points)[0, 0, 1]) == float(points[0, 1, 2] - points[0, 0, 2]) > 0


@pytest.mark.parametrize("shape", [(2, 6, 3), (0, 4, 2), (2, 0, 3)])
def test_operator_keeps_the_rules_of_torch(shape: tuple[int, int, int]):
    torch.library.opcheck(_distance_ops.distances, (torch.randn(shape),))


@pytest.mark.parametrize("dim", [0, 2])
def test_under_vmap(dim: int):
    points = torch.randn(3, 2, 6, 4)
    together = torch.func.vmap(_distance_ops.distances, in_dims=dim)(points.movedim(0, dim))
    torch.testing.assert_close(together, torch.stack([_distance_ops.distances(each) for each in points]))
