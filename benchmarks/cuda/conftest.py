"""Leaves out what this machine cannot run: `make bench` measures machines without a GPU as well."""

from __future__ import annotations

import pytest
import torch

from graphmatch import _device


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects the benchmarks that need a GPU where there is none, or no CUDA module."""
    if torch.cuda.is_available() and _device.has_kernels():
        return
    left_out = [item for item in items if item.get_closest_marker("cuda")]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
