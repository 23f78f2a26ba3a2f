"""Losses and layers read no value between costs and gradients: what would make the host wait for a GPU.

There is no GPU here. Two stand-ins take its way through the library: tensors on the CPU, whose answers must be the same
as ever, and tensors on the meta device, which have no values to be read and cannot be copied away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import graphmatch as gm
from graphmatch import _device, _native, matching_ops

# Operators that read values on the host, or take data from there.
WAITING = (
    "_local_scalar_dense",
    "bincount",
    "equal",
    "is_nonzero",
    "lift_fresh",
    "masked_select",
    "nonzero",
    "nonzero_numpy",
    "repeat_interleave",
    "unique_consecutive",
    "unique_dim",
    "_unique",
    "_unique2",
)
# Operators in Python, whose insides are looked at as well.
INSIDE = {
    torch.ops.graphmatch.matching_solve.default: matching_ops._matching_solve,
    torch.ops.graphmatch.matching_sample.default: matching_ops._matching_sample,
    torch.ops.graphmatch.matching_scores.default: matching_ops._matching_scores,
}
ESTIMATORS = (
    gm.IMLE(samples=2),
    gm.IMLE(samples=2, symmetric=False, open_samples="drop", noise="gaussian", coupling="antithetic"),
    gm.IMLE(samples=2, perturb="all", target="sign"),
    gm.AdaptiveIMLE(),
    gm.BlackBox(),
    gm.FenchelYoung(samples=2),
    gm.PerturbedOptimizer(samples=2),
    gm.NegativeIdentity(),
    gm.NegativeIdentity(normalise=True),
)


class NoWaiting(TorchDispatchMode):
    """Fails where an operator would wait for a GPU that the tensors were on; counts the solves."""

    def __init__(self) -> None:
        super().__init__()
        self.solves = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[1].rstrip("_")
        self.solves += name in ("lawler_solve", "linear_assignment")
        assert name not in WAITING, f"{func} reads values, or takes them from the host"
        if name in ("index", "index_put"):
            assert all(each is None or each.dtype == torch.int64 for each in args[1]), f"{func} counts a mask"
        given = {each.device.type for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)}
        if name in ("_to_copy", "copy"):
            target = str(kwargs.get("device") or args[0].device).split(":")[0]
            assert given | {target} == given or not given, f"{func} copies from {given} to {target}"
        assert len(given) <= 1, f"{func} takes tensors on {given}"
        if func in INSIDE:
            with self:
                return INSIDE[func](*args, **kwargs)
        return func(*args, **kwargs)


def forbidden(*_: object, **__: object) -> None:
    raise AssertionError("a value was read on the host")


@pytest.fixture(params=["cpu", "meta"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The device that stands in for a GPU."""
    monkeypatch.setattr(_device, "resident", lambda tensor: tensor.device.type == request.param)
    monkeypatch.setattr(_native, "cuda", lambda: SimpleNamespace(device_count=lambda: 1))
    return request.param


def run(monkeypatch: pytest.MonkeyPatch, function: Callable[[], Tensor]) -> tuple[Tensor, NoWaiting]:
    """Calls a function and the backward pass of its sum where nothing may wait."""
    with monkeypatch.context() as patch, NoWaiting() as mode:
        for name in ("cpu", "item", "numpy", "tolist", "__bool__", "__float__", "__int__"):
            patch.setattr(Tensor, name, forbidden)
        patch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no meta device
        loss = function()
        loss.sum().backward()
    return loss, mode


def check_same(device: str, result: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> None:
    """Compares bits, or shapes where there are none."""
    for one, other in zip(result, expected, strict=True):
        assert (one is None) == (other is None)
        if one is None or other is None:
            continue
        assert one.device.type == device
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        assert device == "meta" or torch.equal(one, other)


def aligned(kind: type, device: str, nodes: int, **options: Any) -> tuple[Any, list[Tensor]]:
    torch.manual_seed(0)
    alignment = kind(dim=16, **options)
    views = [torch.randn(nodes, 16) for _ in range(3)]
    alignment.to(device)
    return alignment, [view.to(device).requires_grad_() for view in views]


@pytest.mark.parametrize(
    ("kind", "nodes", "options"),
    [
        (gm.BarycenterAlignment, 8, {}),
        (gm.BarycenterAlignment, 64, {}),
        (gm.BarycenterAlignment, 2, {}),
        (gm.BarycenterAlignment, 1, {}),
        (gm.BarycenterAlignment, 8, {"weights": [1, 0.5, 2], "directions": "both"}),
        (gm.BarycenterAlignment, 8, {"barycenter": "mean", "unmatched_cost": 0.5}),
        (gm.PairwiseAlignment, 8, {}),
        (gm.PairwiseAlignment, 8, {"directions": "both", "residual": False}),
    ],
)
def test_alignments_do_not_wait(monkeypatch: pytest.MonkeyPatch, kind: type, nodes: int, options: dict[str, Any]):
    def step(alignment: Any, views: list[Tensor]) -> Tensor:
        torch.manual_seed(1)
        return alignment(*views)

    usual, their_views = aligned(kind, "cpu", nodes, solver=gm.solvers.quick_solver(), **options)
    # The generic way through the copies of each problem is the one on a GPU.
    monkeypatch.setattr(gm.Portfolio, "sample", lambda *_: None)
    expected = step(usual, their_views)
    expected.backward()
    for device in ("cpu", "meta"):
        with monkeypatch.context() as patch:
            patch.setattr(_device, "resident", lambda tensor, place=device: tensor.device.type == place)
            patch.setattr(_native, "cuda", lambda: SimpleNamespace(device_count=lambda: 1))
            alignment, views = aligned(kind, device, nodes, **options)
            assert not alignment.layer.solver.on_cpu
            loss, mode = run(patch, lambda: step(alignment, views))  # noqa: B023
        assert mode.solves == 3
        check_same(device, [loss.detach()], [expected.detach()])
        check_same(device, [view.grad for view in views], [view.grad for view in their_views])
        weights, theirs = (list(each.parameters()) for each in (alignment, usual))
        check_same(device, [each.grad for each in weights], [each.grad for each in theirs])
        assert alignment.zero_gradient.device.type == device


def test_details_do_not_wait_either(monkeypatch: pytest.MonkeyPatch, gpu: str):
    alignment, views = aligned(gm.BarycenterAlignment, gpu, 8)
    groups = torch.zeros(8, dtype=torch.int64).to(gpu)
    found: list[gm.alignment.AlignmentDetails] = []

    def step() -> Tensor:
        found.append(alignment.details(*views, groups=groups))
        return found[0].loss

    run(monkeypatch, step)
    assert all(each.device.type == gpu and each.ndim == 0 for each in vars(found[0]).values())


def layer_costs(device: str, kind: str) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(5, (2, 7, 2), generator=generator)
    unary = torch.randn(2, 5, 5, generator=generator)
    quadratic = torch.randn(2, 7, 7, generator=generator)
    costs = (unary,) if kind == "linear" else (unary, quadratic)
    costs = tuple(each.to(device).requires_grad_() for each in costs)
    return costs if kind == "linear" else (*costs, edges.to(device), edges.flip(1).to(device))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("sizes", [False, True])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_layers_do_not_wait(
    monkeypatch: pytest.MonkeyPatch, gpu: str, estimator: gm.GradientEstimator, sizes: bool, training: bool
):
    real = torch.tensor([[5, 4, 7, 6], [3, 5, 0, 7]]).to(gpu) if sizes else None
    layer = gm.MatchingLayer(gm.DualAscent(max_iterations=5), estimator, unmatched_cost=0.1).to(gpu).train(training)
    target = torch.eye(5).to(gpu)
    arguments = layer_costs(gpu, "lawler")
    if sizes:  # edges of the real graphs
        arguments = (*arguments[:2], *(edges % 3 for edges in arguments[2:]))

    def step() -> Tensor:
        if isinstance(estimator, gm.FenchelYoung):
            return layer.loss(target, *arguments, sizes=real)
        matching, pairs = layer(*arguments, sizes=real, step=3)
        return gm.hamming_loss(matching, target) + pairs.sum()

    run(monkeypatch, step)
    assert all(cost.grad is not None and cost.grad.device.type == gpu for cost in arguments[:1])
    assert layer.result is not None
    assert layer.result.assignment.device.type == gpu


def test_a_warm_start_stays(monkeypatch: pytest.MonkeyPatch, gpu: str):
    unary, quadratic, edges1, edges2 = layer_costs(gpu, "lawler")
    with NoWaiting():
        problem = gm.LawlerProblem(unary, quadratic, edges1, edges2)
        first = gm.solve(problem, gm.DualAscent())
        again = gm.solve(problem, gm.DualAscent(), state=first.state)
    assert isinstance(again.state, gm.SolverState)
    assert {each.device.type for each in vars(again.state).values()} == {gpu}


def test_values_are_left_to_the_solver(gpu: str):
    nowhere = torch.full((3, 2), 9).to(gpu)
    problem = gm.LawlerProblem(torch.zeros(1, 2, 2).to(gpu), torch.full((1, 3, 3), torch.nan).to(gpu), nowhere, nowhere)
    assert problem.batch_size == 1
    with pytest.raises(ValueError, match="quadratic_costs must have shape"):
        gm.LawlerProblem(torch.zeros(1, 2, 2).to(gpu), torch.zeros(1, 3, 2).to(gpu), nowhere, nowhere)
