"""Distances between all points of each set as an operator: on a GPU, a kernel that reads each point a few times."""

from __future__ import annotations

import torch
from torch import Tensor

from graphmatch import _native, _ops

_library = _ops._library
_library.define("distances(Tensor points) -> Tensor", tags=torch.Tag.pt2_compliant_tag)

distances = torch.ops.graphmatch.distances.default


@torch.library.impl(_library, "distances", "CPU")
def _distances(points: Tensor) -> Tensor:
    """Distances (b, n, n) of points (b, n, d), float32 or float64."""
    # Differences, not |x|^2 + |y|^2 - 2xy: the latter loses the distances of close points in float32.
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")


@torch.library.impl(_library, "distances", "CUDA")
def _distances_cuda(points: Tensor) -> Tensor:
    """The same on the GPU; without the CUDA module PyTorch's."""
    cuda = _native.cuda()
    if cuda is None:
        return _distances(points)
    points = points.contiguous()
    batch, count, dim = points.shape
    measured = points.new_empty((batch, count, count))
    cuda.distances(
        points=points.data_ptr(),
        batch=batch,
        count=count,
        dim=dim,
        is_double=points.dtype == torch.float64,
        distances=measured.data_ptr(),
        device=points.device.index,
        stream=torch.cuda.current_stream(points.device).cuda_stream,
    )
    return measured


@torch.library.register_fake("graphmatch::distances", lib=_library)
def _distances_fake(points: Tensor) -> Tensor:
    return points.new_empty((points.shape[0], points.shape[1], points.shape[1]))


@torch.library.register_vmap("graphmatch::distances", lib=_library)
def _distances_vmap(info: object, in_dims: tuple[int | None, ...], points: Tensor) -> tuple[Tensor, int]:
    batched = points.movedim(in_dims[0] or 0, 0)
    return distances(batched.flatten(0, 1)).unflatten(0, batched.shape[:2]), 0
