"""What stays on the GPU: the one place that decides it.

Reading a value of a tensor that lives there makes the host wait for all work that was queued before. So the library
reads none on the way from costs to gradients: what needs values is left to the kernels.
"""

from __future__ import annotations

from torch import Tensor

from graphmatch import _native


def resident(tensor: Tensor) -> bool:
    """Returns whether a tensor lives on a GPU, so that its values are not to be read here."""
    return tensor.is_cuda


def has_kernels() -> bool:
    """Returns whether graphmatch was built with its CUDA module."""
    return _native.cuda() is not None
