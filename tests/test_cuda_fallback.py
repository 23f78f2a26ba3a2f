"""Problems on a GPU that cannot be solved there: errors that say what to do, and copies where they were asked for."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import graphmatch as gm
from graphmatch import _device, _native, cli, noise
from graphmatch.solvers import quick_solver


@pytest.fixture
def resident(monkeypatch: pytest.MonkeyPatch) -> None:
    """All tensors count as on a GPU."""
    monkeypatch.setattr(_device, "resident", lambda tensor: True)


def set_module(monkeypatch: pytest.MonkeyPatch, built: bool) -> None:
    """Makes the CUDA module there, with a GPU, or missing."""
    monkeypatch.setattr(_native, "cuda", lambda: SimpleNamespace(device_count=lambda: 1) if built else None)


def problem(**changes: Any) -> gm.LawlerProblem:
    edges = torch.tensor([[0, 1], [1, 2]])
    given = {"unary_costs": torch.zeros(1, 3, 3), "quadratic_costs": -torch.eye(2)[None], "edges1": edges}
    return gm.LawlerProblem(**(given | {"edges2": edges} | changes))


@pytest.mark.parametrize("solver", [gm.Portfolio(), gm.DualAscent(), gm.Tabu(), gm.Fusion(), gm.BranchAndBound()])
@pytest.mark.usefixtures("resident")
def test_without_the_cuda_module_problems_on_a_gpu_are_refused(monkeypatch: pytest.MonkeyPatch, solver: Any):
    set_module(monkeypatch, built=False)
    name = type(solver).__name__
    with pytest.raises(ValueError, match=rf"{name}: the problem must be on the CPU; got device cpu. Set on_cpu=True"):
        gm.solve(problem(), solver)


@pytest.mark.usefixtures("resident")
def test_the_error_says_that_nvcc_was_missing(monkeypatch: pytest.MonkeyPatch):
    set_module(monkeypatch, built=False)
    with pytest.raises(ValueError, match=r"the answer back: graphmatch was built without nvcc\.$"):
        gm.solve(problem(), gm.Portfolio())


@pytest.mark.parametrize("solver", [gm.Fusion(), gm.BranchAndBound()])
@pytest.mark.usefixtures("resident")
def test_solvers_without_a_kernel_name_those_that_have_one(monkeypatch: pytest.MonkeyPatch, solver: Any):
    set_module(monkeypatch, built=True)
    assert not solver.has_cuda_kernel
    with pytest.raises(ValueError, match=r"on_cpu=True .* or use Portfolio, DualAscent or Tabu, which solve sparse"):
        gm.solve(problem(), solver)


@pytest.mark.parametrize("solver", [gm.Portfolio, gm.DualAscent, gm.Tabu])
@pytest.mark.usefixtures("resident")
def test_a_time_limit_is_refused(monkeypatch: pytest.MonkeyPatch, solver: Any):
    set_module(monkeypatch, built=True)
    assert solver.has_cuda_kernel
    with pytest.raises(ValueError, match=r"time_limit must be None on a GPU, which keeps no time; got 1\.0\. Use max_"):
        gm.solve(problem(), solver(time_limit=1.0))
    assert gm.solve(problem(), solver(time_limit=1.0, on_cpu=True)).statuses == gm.solve(problem(), solver()).statuses


@pytest.mark.parametrize("device", ["meta"])
def test_other_devices_are_refused_as_ever(monkeypatch: pytest.MonkeyPatch, device: str):
    set_module(monkeypatch, built=True)
    usual = problem()
    tensors = {name: value.to(device) for name, value in vars(usual).items() if isinstance(value, torch.Tensor)}
    monkeypatch.setattr(_device, "resident", lambda tensor: True)  # no value of theirs can be checked
    elsewhere = gm.LawlerProblem(**tensors)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"must be on the CPU; got device meta\. Set on_cpu=True on the solver to"):
        gm.solve(elsewhere, gm.DualAscent())


@pytest.mark.parametrize("built", [True, False])
def test_the_quick_solver_copies_only_without_the_cuda_module(monkeypatch: pytest.MonkeyPatch, built: bool):
    set_module(monkeypatch, built)
    assert quick_solver().on_cpu is not built
    assert gm.BarycenterAlignment(dim=4).layer.solver == quick_solver()


@pytest.mark.usefixtures("resident")
def test_alignment_without_the_cuda_module_goes_by_the_cpu(monkeypatch: pytest.MonkeyPatch):
    set_module(monkeypatch, built=False)
    views = [torch.randn(6, 8, requires_grad=True) for _ in range(3)]
    gm.BarycenterAlignment(dim=8)(*views).backward()
    assert all(torch.isfinite(view.grad).all() for view in views)


def test_noise_is_the_same_with_and_without_the_cuda_module(monkeypatch: pytest.MonkeyPatch):
    counters = torch.zeros(2, dtype=torch.int64), torch.arange(2)
    call = noise.Noise(samples=3)
    expected = noise.draw(call, *counters, (2, 3), None, 0, 0, 3)
    monkeypatch.setattr(_device, "resident", lambda tensor: True)
    for built in (True, False):
        set_module(monkeypatch, built)
        assert torch.equal(noise.draw(call, *counters, (2, 3), None, 0, 0, 3), expected)


def test_copies_are_checked_where_the_originals_could_not_be(monkeypatch: pytest.MonkeyPatch):
    # The meta device has no values either, so a copy to it stands for the GPU and its way back for the check.
    real = problem(quadratic_costs=torch.zeros(1, 2, 2))
    monkeypatch.setattr(_device, "resident", lambda tensor: tensor.device.type == "meta")
    tensors = {name: value.to("meta") for name, value in vars(real).items() if isinstance(value, torch.Tensor)}
    elsewhere = gm.LawlerProblem(**tensors)
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: torch.full(tensor.shape, 7, dtype=tensor.dtype))
    with pytest.raises(ValueError, match=r"LawlerProblem: edges1 must hold node indices in \[0, 3\)"):
        gm.solve(elsewhere, gm.DualAscent(on_cpu=True))


@pytest.mark.parametrize(
    ("devices", "text"),
    [(None, "not built: nvcc was not found when graphmatch was built"), (2, "built, 2 device(s) visible")],
)
def test_info_says_what_the_gpu_part_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], devices: int | None, text: str
):
    module = None if devices is None else SimpleNamespace(device_count=lambda: devices)
    monkeypatch.setattr(_native, "cuda", lambda: module)
    assert cli.main(["info"]) == 0
    assert text in capsys.readouterr().out
    assert cli.main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cuda_devices"] == devices
