"""Matching layers under torch.compile, torch.func, gradient accumulation and data parallelism."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import graphmatch as gm
from graphmatch.matching_ops import number_of

ESTIMATORS = {
    "blackbox": gm.BlackBox(step=4.0),
    "imle": gm.IMLE(samples=3, step=3.0, noise_scale=1.0),
    "imle-one-sided": gm.IMLE(
        samples=2, step=4.0, noise_scale=1.0, symmetric=False, open_samples="drop", largest_gap=1
    ),
    "imle-all": gm.IMLE(samples=2, step=2.0, noise_scale=1.0, perturb="all", target="sign", open_samples="weigh"),
}
every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)


class Instance:
    """Costs of four problems with 5 nodes, linear weights of a loss."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)

        def random(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator)

        self.unary = random(4, 5, 5).requires_grad_()
        self.quadratic = random(4, 7, 6).requires_grad_()
        self.edges1 = torch.randint(5, (4, 7, 2), generator=generator)
        self.edges2 = torch.randint(5, (4, 6, 2), generator=generator)
        self.weights = random(4, 5, 5), random(4, 7, 6)
        self.flow, self.distance = random(4, 5, 5).requires_grad_(), random(4, 5, 5).requires_grad_()


@pytest.fixture
def instance() -> Instance:
    return Instance()


class Model(nn.Module):
    """A linear map of the unary costs, a matching, a loss."""

    def __init__(self, estimator: gm.GradientEstimator, solver: gm.Solver | None, instance: Instance) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.map = nn.Linear(5, 5)
        self.layer = gm.MatchingLayer(solver, estimator)
        self.instance = instance

    def forward(self, unary: Tensor, quadratic: Tensor | None) -> Tensor:
        i = self.instance
        if quadratic is None:
            return (i.weights[0] * self.layer(self.map(unary))).sum()
        matching, paid = self.layer(self.map(unary), quadratic, i.edges1, i.edges2)
        return (i.weights[0] * matching).sum() + (i.weights[1] * paid).sum()


@dataclass(frozen=True)
class Foreign:
    """A solver that this library does not know: it looks into its tensors, and calls Python."""

    def solve(self, problem: gm.Problem) -> gm.MatchResult:
        result = gm.BruteForce().solve(problem)
        if float(result.objective.sum()) != float(result.objective.sum()):
            raise RuntimeError("no finite objective")
        return result


SOLVERS = {"default": None, "dual-ascent": gm.DualAscent(keep_state=False), "foreign": Foreign()}


@every_estimator
@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_a_compiled_model_has_no_graph_break_and_the_same_gradients(
    estimator: gm.GradientEstimator, solver: gm.Solver | None, instance: Instance
):
    model = Model(estimator, solver, instance)
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="aot_eager")
    for _ in range(2):  # the noise of the second call differs in both
        expected = torch.autograd.grad(model(instance.unary, instance.quadratic), (instance.unary, instance.quadratic))
        found = torch.autograd.grad(compiled(instance.unary, instance.quadratic), (instance.unary, instance.quadratic))
        for one, other in zip(expected, found, strict=True):
            assert one.abs().max() > 0
            torch.testing.assert_close(other, one)
    torch._dynamo.reset()


def test_a_compiled_model_keeps_its_certificates(instance: Instance):
    compiled = torch.compile(Model(gm.IMLE(samples=3), None, instance), fullgraph=True, backend="aot_eager")
    compiled(instance.unary, instance.quadratic).backward()
    layer = compiled.layer
    assert layer.result.gap.shape == (4,)
    assert layer.samples.gap.shape == (3, 4)
    assert layer.calls == 1
    torch._dynamo.reset()


@pytest.mark.parametrize("kind", [gm.BarycenterAlignment, gm.PairwiseAlignment])
def test_the_whole_alignment_compiles_as_one_graph(kind: type[nn.Module]):
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(9, 12, generator=generator).requires_grad_() for _ in range(3)]
    alignment = kind(dim=12, k=3, dropout=0.0)
    compiled = torch.compile(copy.deepcopy(alignment), fullgraph=True, backend="aot_eager")
    expected, found = (torch.autograd.grad(each(*views), views) for each in (alignment, compiled))
    for one, other in zip(expected, found, strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(other, one)
    torch._dynamo.reset()


@pytest.mark.slow
def test_a_model_compiled_by_inductor(instance: Instance):
    model = Model(gm.IMLE(samples=2), None, instance)
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True)
    expected = torch.autograd.grad(model(instance.unary, instance.quadratic), instance.unary)[0]
    found = torch.autograd.grad(compiled(instance.unary, instance.quadratic), instance.unary)[0]
    torch.testing.assert_close(found, expected)
    torch._dynamo.reset()


@every_estimator
def test_compiled_linear_and_dense_problems(estimator: gm.GradientEstimator, instance: Instance):
    linear = Model(estimator, None, instance)
    compiled = torch.compile(copy.deepcopy(linear), fullgraph=True, backend="aot_eager")
    expected, found = (
        torch.autograd.grad(each(instance.unary, None), instance.unary)[0] for each in (linear, compiled)
    )
    torch.testing.assert_close(found, expected)

    layer = gm.MatchingLayer(gradient=estimator)

    def dense(flow: Tensor, distance: Tensor) -> Tensor:
        return (instance.weights[0] * layer.dense(flow, distance, step=0)).sum()

    each = torch.compile(dense, fullgraph=True, backend="aot_eager")
    inputs = (instance.flow, instance.distance)
    expected, found = (torch.autograd.grad(one(*inputs), inputs) for one in (dense, each))
    for one, other in zip(expected, found, strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(other, one)
    torch._dynamo.reset()


def calls_of(layer: gm.MatchingLayer, instance: Instance, kind: str) -> tuple[Callable, tuple[Tensor, ...]]:
    """A scalar function of the costs of one batch, and costs of three batches."""
    i = instance

    def shifted(costs: Tensor) -> Tensor:
        return torch.stack([costs.detach(), costs.detach().flip(0), -costs.detach()])

    if kind == "linear":
        return lambda u: (i.weights[0] * layer(u, step=3)).sum(), (shifted(i.unary),)
    if kind == "dense":
        return lambda f, d: (i.weights[0] * layer.dense(f, d, step=3)).sum(), (shifted(i.flow), shifted(i.distance))

    def lawler(unary: Tensor, quadratic: Tensor) -> Tensor:
        matching, paid = layer(unary, quadratic, i.edges1, i.edges2, step=3)
        return (i.weights[0] * matching).sum() + (i.weights[1] * paid).sum()

    return lawler, (shifted(i.unary), shifted(i.quadratic))


@every_estimator
@pytest.mark.parametrize("kind", ["linear", "lawler", "dense"])
def test_vmap_is_a_loop(estimator: gm.GradientEstimator, kind: str, instance: Instance):
    loss, costs = calls_of(gm.MatchingLayer(gradient=estimator), instance, kind)
    expected = torch.stack([loss(*each) for each in zip(*costs, strict=True)])
    torch.testing.assert_close(torch.vmap(loss)(*costs), expected)
    places = tuple(range(len(costs)))
    gradients = [torch.func.grad(loss, places)(*each) for each in zip(*costs, strict=True)]
    mapped = torch.vmap(torch.func.grad(loss, places))(*costs)
    for place in places:
        one = torch.stack([each[place] for each in gradients])
        assert one.abs().max() > 0
        torch.testing.assert_close(mapped[place], one)


def test_vmap_over_one_of_the_costs(instance: Instance):
    layer = gm.MatchingLayer(gradient=gm.IMLE(samples=2))
    loss, (unary, quadratic) = calls_of(layer, instance, "lawler")
    expected = torch.stack([loss(each, quadratic[0]) for each in unary])
    torch.testing.assert_close(torch.vmap(loss, (0, None))(unary, quadratic[0]), expected)


@every_estimator
def test_gradients_accumulate_over_parts_of_a_batch(estimator: gm.GradientEstimator, instance: Instance):
    layer = gm.MatchingLayer(gradient=estimator)
    numbers = torch.tensor([40, 7, 1000, 3])

    def gradient(chosen: Tensor) -> Tensor:
        i = instance
        unary = i.unary.detach()[chosen].requires_grad_()
        arguments = (i.quadratic[chosen], i.edges1[chosen], i.edges2[chosen])
        matching, paid = layer(unary, *arguments, instances=numbers[chosen], step=5)
        loss = (i.weights[0][chosen] * matching).sum() + (i.weights[1][chosen] * paid).sum()
        return torch.autograd.grad(loss, unary)[0]

    whole = gradient(torch.arange(4))
    assert whole.abs().max() > 0
    parts = torch.tensor([2, 0]), torch.tensor([3, 1])
    for part in parts:
        assert torch.equal(gradient(part), whole[part]), "noise follows the instance, not its place"


def test_steps_and_instances_have_noise_of_their_own(instance: Instance):
    layer = gm.MatchingLayer(gradient=gm.IMLE(samples=64, noise_scale=2.0))
    unary = instance.unary.detach()
    first = layer(unary, step=0)
    assert torch.equal(layer(unary, step=0), first)
    assert torch.equal(layer(unary, step=torch.tensor(0)), first)
    assert not torch.equal(layer(unary, step=1), first)
    assert not torch.equal(layer(unary, step=0, instances=torch.arange(1, 5)), first)
    assert layer.calls == 0, "given steps do not count"


@pytest.mark.parametrize(
    ("instances", "error"),
    [(torch.arange(3), ValueError), (torch.arange(4.0), TypeError), (torch.zeros(4, 1).long(), ValueError)],
    ids=["too few", "floats", "a matrix"],
)
def test_bad_instances(instances: Tensor, error: type[Exception], instance: Instance):
    layer = gm.MatchingLayer(gradient=gm.IMLE(samples=2))
    with pytest.raises(error, match=r"^MatchingLayer: instances must .+; got .+\. \S.*\.$"):
        layer(instance.unary, instances=instances)


def test_solvers_are_numbered_by_value():
    assert number_of(gm.LAP()) == number_of(gm.LAP())
    assert number_of(gm.LAP()) != number_of(gm.LAP(threads=1))
    mutable = [Foreign(), Foreign()]
    assert number_of(mutable[0]) == number_of(mutable[1])

    class Unhashable(Foreign):
        __hash__ = None

    one, other = Unhashable(), Unhashable()
    assert number_of(one) == number_of(one) != number_of(other)


def test_layers_are_pickled_with_their_solver(instance: Instance):
    layer = gm.MatchingLayer(gm.DualAscent(max_iterations=3), gm.IMLE(samples=2))
    again = pickle.loads(pickle.dumps(layer))
    arguments = (instance.unary.detach(), instance.quadratic, instance.edges1, instance.edges2)
    layer(*arguments)
    torch.vmap(lambda each: layer(each, *arguments[1:], step=0)[0])(arguments[0][None])  # leaves nothing to copy behind
    assert copy.deepcopy(layer).result is None
    layer.calls.zero_()
    assert again.solver == layer.solver
    assert torch.equal(layer(*arguments)[0], again(*arguments)[0])


_DISTRIBUTED = """
import os, torch, torch.distributed as dist, graphmatch as gm


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.map = torch.nn.Linear(3, 8)
        self.layer = gm.MatchingLayer(gradient=gm.IMLE(samples=4, noise_scale=0.5))

    def forward(self, a, b, numbers):
        return gm.hamming_loss(self.layer(-self.map(a) @ self.map(b).mT, instances=numbers), torch.eye(6))


def main(rank, world):
    generator = torch.Generator().manual_seed(0)
    features, others = (torch.randn(4, 6, 3, generator=generator) for _ in range(2))
    alone = Model()
    alone(features, others, torch.arange(4)).backward()
    parallel = torch.nn.parallel.DistributedDataParallel(Model())
    mine = torch.arange(4)[rank::world]
    parallel(features[mine], others[mine], mine).backward()
    for one, other in zip(alone.parameters(), parallel.parameters()):
        assert one.grad.abs().max() > 0
        torch.testing.assert_close(other.grad, one.grad)


torch.set_num_threads(1)
dist.init_process_group("gloo")
rank = dist.get_rank()
main(rank, dist.get_world_size())
os.write(1, f"same gradients on rank {rank}\\n".encode())
dist.barrier()
os._exit(0)  # gloo's threads may abort a process that takes its group down, whatever the model
"""


def test_data_parallel_gradients_are_those_of_one_process(tmp_path: Path):
    script = tmp_path / "train.py"
    script.write_text(_DISTRIBUTED, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"same gradients on rank {rank}" in done.stdout for rank in (0, 1))
