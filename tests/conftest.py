"""Fixtures and collection rules shared by all tests."""

from __future__ import annotations

import importlib.util
import inspect
import os
from collections.abc import Callable
from pathlib import Path

# Before any test imports transformers: nothing here may reach for the network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis
import pytest
import torch

import graphmatch as gm

DATA_VARIABLE = "GRAPHMATCH_DATA"

# One thread: sums of floats are then added in the same order on every machine.
torch.set_num_threads(1)

hypothesis.settings.register_profile("dev", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, max_examples=60, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")


def _data_folder() -> Path | None:
    """The folder that GRAPHMATCH_DATA names; None if the variable is not set."""
    value = os.environ.get(DATA_VARIABLE)
    if not value:
        return None
    folder = Path(value).resolve()
    if not folder.is_dir():
        raise pytest.UsageError(f"{DATA_VARIABLE} must name an existing folder; got {value!r}. Unset or correct it.")
    return folder


def _has_cuda_module() -> bool:
    """Whether graphmatch was built with nvcc."""
    return importlib.util.find_spec("graphmatch._native_cuda") is not None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what this machine cannot run; the deselected tests are counted in the last line."""
    available = {
        "needs_data": _data_folder() is not None,
        "cuda_module": _has_cuda_module(),
        "cuda": _has_cuda_module() and torch.cuda.is_available(),
    }
    missing = [marker for marker, is_there in available.items() if not is_there]
    kept, left_out = [], []
    for item in items:
        if "data_folder" in getattr(item, "fixturenames", ()):
            item.add_marker("needs_data")
        can_run = not any(item.get_closest_marker(name) for name in missing)
        (kept if can_run else left_out).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)


def pytest_report_header() -> list[str]:
    """Says what the tests of this run stand on."""
    data = _data_folder() or f"none, {DATA_VARIABLE} is not set"
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [f"torch {torch.__version__}; CUDA module: {_has_cuda_module()}; GPUs: {gpus}; data: {data}"]


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real instances and records; its tests run only where GRAPHMATCH_DATA names it."""
    folder = _data_folder()
    assert folder is not None, "collection leaves out the tests that need data"
    return folder


@pytest.fixture
def seed() -> int:
    """The seed of a test that needs one; torch's global generator starts from it as well."""
    torch.manual_seed(0)
    return 0


@pytest.fixture
def rng(seed: int) -> torch.Generator:
    """A CPU generator that starts the same way in every test."""
    return torch.Generator().manual_seed(seed)


def _make_problem(
    kind: str,
    seed: int,
    *,
    batch: int = 2,
    n1: int = 4,
    n2: int = 4,
    e1: int = 6,
    e2: int = 6,
    dtype: torch.dtype = torch.float64,
    unmatched_cost: float | None = None,
    forbidden: float = 0.0,
    integers: bool = False,
) -> gm.Problem:
    """A random batch of full-size problems; `forbidden` is the share of infinite linear costs."""
    generator = torch.Generator().manual_seed(seed)

    def costs(*shape: int) -> torch.Tensor:
        values = torch.randn(shape, generator=generator, dtype=torch.float64)
        return ((2 * values).round() if integers else values).to(dtype)

    def with_forbidden(values: torch.Tensor) -> torch.Tensor:
        return values.masked_fill(torch.rand(values.shape, generator=generator) < forbidden, torch.inf)

    def edges(count: int, nodes: int) -> torch.Tensor:
        return torch.randint(max(nodes, 1), (batch, count if nodes else 0, 2), generator=generator)

    if kind == "linear":
        return gm.LinearProblem(with_forbidden(costs(batch, n1, n2)), None, unmatched_cost)
    if kind == "koopmans_beckmann":
        return gm.KoopmansBeckmannProblem(
            costs(batch, n1, n1), costs(batch, n1, n1), with_forbidden(costs(batch, n1, n1))
        )
    edges1, edges2 = edges(e1, n1), edges(e2, n2)
    quadratic = costs(batch, edges1.shape[1], edges2.shape[1])
    return gm.LawlerProblem(with_forbidden(costs(batch, n1, n2)), quadratic, edges1, edges2, None, unmatched_cost)


@pytest.fixture(scope="session")
def make_problem() -> Callable[..., gm.Problem]:
    """Builds a random problem of kind "linear", "lawler" or "koopmans_beckmann"; see `_make_problem`."""
    return _make_problem


def pytest_make_parametrize_id(val: object) -> str | None:
    """Names of cases that are the same in every process: tests run in several at once."""
    if isinstance(val, (set, frozenset)):
        return ",".join(sorted(map(str, val)))
    return val.__name__.strip("<>") if inspect.isfunction(val) else None
