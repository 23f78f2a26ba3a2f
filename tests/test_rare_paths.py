"""What happens seldom: a build without its modules, broken arguments below the public functions, unproven answers."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import graphmatch as gm
from graphmatch import _device, _native, _sampling_ops, cli
from graphmatch.gradients.base import Reliability
from graphmatch.gradients.sampling import sample_weights
from graphmatch.matching_kinds import KINDS
from graphmatch.multigraph import distance
from graphmatch.solvers import lap
from graphmatch.studies import multigraph_scaling
from graphmatch.studies.multigraph import MultiGraphStudy, StudyResult

ERROR_FORM = r"^\S.*: .+ must .+; got .+\. \S.*\.$"


def loader_without(monkeypatch: pytest.MonkeyPatch, missing: str, error: type[ImportError]) -> ModuleType:
    """The loader of the compiled modules as it is read where one of them is missing."""
    real = importlib.import_module

    def import_module(name: str, package: str | None = None) -> ModuleType:
        if name == missing:
            raise error(f"No module named {name!r}")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", import_module)
    specification = importlib.util.spec_from_file_location("loader_under_test", _native.__file__)
    loader = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(loader)
    return loader


def test_a_missing_core_says_how_to_build_it(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ImportError, match=r"graphmatch._native_cpu must be importable; got No module .*pip install \."):
        loader_without(monkeypatch, "graphmatch._native_cpu", ModuleNotFoundError)


def test_a_missing_cuda_module_is_none_and_a_broken_one_an_error(monkeypatch: pytest.MonkeyPatch):
    loader = loader_without(monkeypatch, "graphmatch._native_cuda", ModuleNotFoundError)
    assert loader.cuda() is None
    with pytest.raises(RuntimeError, match=r"must be done by the CUDA module; got a build without it. Rebuild"):
        loader.required_cuda("matchings")
    monkeypatch.undo()
    loader = loader_without(monkeypatch, "graphmatch._native_cuda", ImportError)
    with pytest.raises(ImportError):
        loader.cuda()


@pytest.mark.parametrize("name", ["keys", "instances"])
@pytest.mark.parametrize("broken", [torch.zeros(3, dtype=torch.int64), torch.zeros(2, dtype=torch.int32)])
def test_noise_wants_a_number_per_problem(name: str, broken: Tensor):
    counters = {"keys": torch.zeros(2, dtype=torch.int64), "instances": torch.zeros(2, dtype=torch.int64)}
    with pytest.raises(ValueError, match=rf"noise: {name} must be \(2,\) int64, a number per problem; got"):
        _sampling_ops._counters(*(counters | {name: broken}).values(), 2)


@pytest.mark.parametrize("broken", [torch.zeros(1, 4, 4).double(), torch.zeros(2, 4, 4)])
def test_steps_are_shaped_as_their_costs(broken: Tensor):
    with pytest.raises(ValueError, match=r"samples: unary_step must be \(2, 4, 4\), torch.float64 as its costs; got"):
        _sampling_ops._checked_step("unary_step", broken, torch.zeros(2, 4, 4).double())


def test_a_command_without_memory_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    def exhausted(*unused: object) -> None:
        raise MemoryError

    monkeypatch.setattr("graphmatch.cli.solve.run", exhausted)
    path = tmp_path / "a.dd"
    path.write_text("p 1 1 1 0\na 0 0 0 1.0\n")
    assert cli.main(["solve", str(path)]) == 2
    assert "out of memory: use a smaller problem or fewer threads" in capsys.readouterr().err


def test_coupled_sums_of_gamma_are_refused():
    with pytest.raises(ValueError, match=ERROR_FORM):
        gm.IMLE(noise="sum_of_gamma", coupling="antithetic")


def test_a_memory_for_each_call_of_a_vmap_is_refused():
    memories = torch.stack([gm.AdaptiveIMLE().initial_memory()] * 2)
    with pytest.raises(ValueError, match=r"AdaptiveIMLE: memory must be shared by all calls of a vmap"):
        torch.func.vmap(lambda memory: torch.ops.graphmatch.adapt_(memory, torch.ones(1), 1.0, 0.1))(memories)


def test_samples_without_certificates_count_alike():
    weights = sample_weights((), Reliability(), (3, 2), torch.zeros(1, dtype=torch.float64))
    assert torch.equal(weights, torch.ones(3, 2, dtype=torch.float64))


def test_a_layer_has_no_samples_before_its_first_call_and_no_gap_without_noise():
    layer = gm.MatchingLayer(gm.LAP())
    assert layer.result is None
    assert layer.samples.objective is None
    assert layer.samples.gap is None


def test_a_loss_of_other_solutions_has_no_gradient(make_problem: Callable):
    problem = make_problem("lawler", 0, batch=2)
    unary = problem.unary_costs.clone().requires_grad_()
    layer = gm.MatchingLayer(gradient=gm.BlackBox())
    matching, paid = layer(unary, problem.quadratic_costs, problem.edges1, problem.edges2)
    grads = torch.autograd.grad((0 * matching).sum() + (0 * paid).sum(), unary)
    assert grads[0].count_nonzero() == 0


@pytest.mark.parametrize("kind", ["lawler", "dense"])
def test_solutions_of_another_kind_of_problem_are_refused(kind: str, make_problem: Callable):
    with pytest.raises(TypeError, match=r"matching: problem must be a .*; got LinearProblem. Build that one"):
        KINDS[kind].solutions(torch.zeros(2, 4, dtype=torch.int64), make_problem("linear", 0))


def test_dense_problems_are_put_together_again(make_problem: Callable):
    problem = make_problem("koopmans_beckmann", 0)
    again = KINDS["dense"].unchecked((problem.linear, problem.flow, problem.distance), (None, None, None), None)
    assert isinstance(again, gm.KoopmansBeckmannProblem)
    assert all(getattr(again, name) is getattr(problem, name) for name in ("linear", "flow", "distance"))


def test_distances_that_the_portfolio_does_not_prove_are_searched(monkeypatch: pytest.MonkeyPatch):
    generator = torch.Generator().manual_seed(0)

    def graph(size: int) -> gm.StructuredGraph:
        nodes = torch.randn(size, 2, generator=generator, dtype=torch.float64)
        return gm.StructuredGraph(nodes, torch.randn(size, size, generator=generator, dtype=torch.float64))

    pairs = [(graph(size), graph(size)) for size in (3, 5, 6)]
    problems = [distance.alignment_costs(*pair, 0.5, len(pair[0].nodes))[0] for pair in pairs]
    expected, bounds = distance._solved(problems, gm.BruteForce())
    hasty: list[Any] = []

    def portfolio(**options: Any) -> gm.Solver:
        hasty.append(options)
        return gm.Tabu(steps=1, restarts=1, threads=1)

    monkeypatch.setattr(distance, "Portfolio", portfolio)
    assignment, found = distance._solved(problems, None)
    assert hasty
    weak = gm.solve(gm.stack_problems(problems), portfolio())
    assert gm.Status.FEASIBLE in weak.statuses
    assert torch.equal(assignment, expected)
    torch.testing.assert_close(found, bounds, rtol=1e-6, atol=1e-6)


def test_linear_costs_on_a_gpu_stay_there_in_a_type_that_kernels_take(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_device, "resident", lambda tensor: True)
    costs = torch.rand(1, 3, 3, requires_grad=True)
    assert lap._solvable_costs(costs, on_cpu=False).data_ptr() == costs.data_ptr()
    assert lap._solvable_costs(costs.half(), on_cpu=False).dtype == torch.float32
    assert lap._solvable_costs(costs.half(), on_cpu=True).dtype == torch.float32
    assert gm.LAP().sample(gm.LinearProblem(torch.rand(1, 3, 3)), None, None) is None
    assert gm.LAP().sample(object(), None, None) is None


def test_questions_without_rows_have_no_answer():
    study = MultiGraphStudy(graphs=(3,), nodes=(5,))
    empty = StudyResult(study=study, rows=(), costs=(), skipped=(), versions={}, seconds=1.0)
    functions = ("_short", "_share", "_barycenter_time", "_barycenter_objective", "_rounds", "_barycenter_graph")
    assert [getattr(multigraph_scaling, name)(empty) for name in functions] == [""] * len(functions)
