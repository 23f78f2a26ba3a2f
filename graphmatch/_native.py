"""Loads the compiled modules; the one place that says how to get them."""

from __future__ import annotations

import importlib
from types import ModuleType

try:
    cpu: ModuleType = importlib.import_module("graphmatch._native_cpu")
except ImportError as error:
    raise ImportError(
        "graphmatch: the compiled module graphmatch._native_cpu must be importable; "
        f"got {error}. Build it with `pip install .` in the source folder (a C++17 compiler is all it needs)."
    ) from error


def cuda() -> ModuleType | None:
    """Returns the CUDA module, or None where graphmatch was built without nvcc."""
    try:
        return importlib.import_module("graphmatch._native_cuda")
    except ModuleNotFoundError:
        return None


def required_cuda(what: str) -> ModuleType:
    """Returns the CUDA module for `what` is to be done with CUDA tensors, or raises a RuntimeError with the cure."""
    module = cuda()
    if module is None:
        raise RuntimeError(
            f"graphmatch: {what} on CUDA tensors must be done by the CUDA module; got a build without it. "
            "Rebuild graphmatch where nvcc is on PATH, or set on_cpu=True on the solver."
        )
    return module
