"""The operators behind matching layers: their contracts with PyTorch, and what they answer."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import graphmatch as gm
from graphmatch.gradients.base import Reliability
from graphmatch.matching_ops import number_of
from graphmatch.matching_oracle import MatchingOracle
from graphmatch.noise import Noise, draw

SOLVERS = {"default": None, "brute-force": gm.BruteForce(), "no-state": gm.DualAscent(keep_state=False)}
every_kind = pytest.mark.parametrize("kind", ["linear", "lawler", "dense"])


def call(kind: str, solver: gm.Solver | None = None, sizes: bool = False) -> tuple[MatchingOracle, tuple[Tensor, ...]]:
    """An oracle of three problems with 4 nodes, and costs."""
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.randn(3, *shape, generator=generator, dtype=torch.float64)

    edges: tuple[Tensor | None, ...] = (None, None)
    costs: tuple[Tensor, ...] = (random(4, 4),)
    real = torch.tensor([[4, 4], [3, 2], [2, 4]])
    if kind == "lawler":
        edges = tuple(torch.randint(2, (3, count, 2), generator=generator) for count in (6, 5))
        costs = (*costs, random(6, 5))
        real = torch.cat([real, torch.tensor([[6, 5], [4, 5], [6, 1]])], 1)
    if kind == "dense":
        costs = (*costs, random(4, 4), random(4, 4))
        real = torch.tensor([4, 3, 2])
    keys, instances = torch.tensor([3, 3, 3]), torch.tensor([5, 9, 2])
    context = (*edges, real if sizes else None, keys, instances)
    return MatchingOracle(kind, number_of(solver), None, context), costs


NOISE = Noise(samples=5, scale=0.7, kind="gumbel", seed=2)


@every_kind
@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
@pytest.mark.parametrize("sizes", [False, True])
def test_operators_keep_their_contract_with_pytorch(kind: str, solver: gm.Solver | None, sizes: bool):
    if kind == "linear" and isinstance(solver, gm.DualAscent):
        solver = gm.LAP()
    oracle, costs = call(kind, solver, sizes)
    context, state = list(oracle.tensors), list(oracle.solve(costs).state)
    steps = [None if place else torch.ones_like(cost) for place, cost in enumerate(costs)]
    options = (NOISE.samples, NOISE.scale, NOISE.kind, NOISE.coupling, False, NOISE.seed)
    end = (kind, None, oracle.solver)
    ops = torch.ops.graphmatch
    for known in ([], state):
        torch.library.opcheck(ops.matching_solve.default, (list(costs), steps, context, known, *end))
        for signs, keep in (([0.0], True), ([1.0, -1.0], False)):
            arguments = (list(costs), steps, context, known, signs, *options, 0.5, False, keep, *end)
            torch.library.opcheck(ops.matching_sample.default, arguments)
    weights = torch.ones(NOISE.samples, 3, dtype=torch.float64)
    for everywhere in (False, True):
        arguments = (list(costs), context, weights, *options[:4], everywhere, NOISE.seed, kind)
        torch.library.opcheck(ops.matching_scores.default, arguments)


def noisy(costs: tuple[Tensor, ...], oracle: MatchingOracle, noise: Noise, sample: int) -> tuple[Tensor, ...]:
    """The costs of one sample."""
    moved = []
    for place, cost in enumerate(costs):
        if place and not noise.everywhere:
            moved.append(cost)
            continue
        shape = tuple(cost.shape[1:])
        standard = draw(noise, *oracle.tensors[3:], shape, None, place, sample, 1)[0]
        moved.append(cost - noise.scale * standard.double())
    return tuple(moved)


NOISES = {
    "gumbel": {},
    "everywhere": {"everywhere": True},
    "gaussian orthogonal": {"kind": "gaussian", "coupling": "orthogonal", "samples": 20},
    "gumbel antithetic": {"coupling": "antithetic"},
    "sum of gamma": {"kind": "sum_of_gamma"},
}


@every_kind
@pytest.mark.parametrize("solver", [None, gm.BruteForce()], ids=["native", "enumeration"])
@pytest.mark.parametrize("options", NOISES.values(), ids=NOISES)
def test_samples_are_solutions_of_noisy_costs(kind: str, options: dict, solver: gm.Solver | None):
    oracle, costs = call(kind, solver)
    noise = replace(NOISE, **options)
    steps = tuple(None if place == 1 else 0.3 * torch.ones_like(cost).cumsum(2) for place, cost in enumerate(costs))
    sampled = oracle.sample(costs, noise, steps, (1.0, -2.0), keep=True)
    for variant, sign in enumerate((1.0, -2.0)):
        solutions = []
        for sample in range(noise.samples):
            moved = noisy(costs, oracle, noise, sample)
            moved = tuple(c if s is None else c + sign * s for c, s in zip(moved, steps, strict=True))
            solutions.append(oracle.solve(moved).solutions)
        for place, mean in enumerate(sampled.means[variant]):
            torch.testing.assert_close(mean, torch.stack([each[place] for each in solutions]).mean(0))
        if kind != "dense":  # whose solutions depend on the noisy flow and distance
            upstream = tuple(torch.randn_like(cost) for cost in costs)
            products = oracle.products(costs, (sampled.kept[0][variant:],), upstream)
            for sample, each in enumerate(solutions):
                expected = sum((g * y).flatten(1).sum(1) for g, y in zip(upstream, each, strict=True))
                torch.testing.assert_close(products[sample], expected)


def test_center_and_certificates_are_reported():
    oracle, costs = call("lawler")
    sampled = oracle.sample(costs, NOISE, keep=True)
    assignment, objective, bound, status, iterations, _, *samples = sampled.report
    exact = gm.solve(gm.LawlerProblem(*costs, *oracle.tensors[:2]), gm.BruteForce())
    torch.testing.assert_close(objective, exact.objective)
    assert assignment.shape == (3, 4)
    assert (bound <= objective).all()
    assert status.eq(0).all()
    assert iterations.ge(1).all()
    assert [tuple(each.shape) for each in samples] == [(1, 5, 3)] * 4
    for sample in range(5):
        moved = noisy(costs, oracle, NOISE, sample)
        best = gm.solve(gm.LawlerProblem(*moved, *oracle.tensors[:2]), gm.BruteForce())
        torch.testing.assert_close(samples[0][0, sample], best.objective)


def test_a_state_replaces_the_center():
    oracle, costs = call("lawler")
    first = oracle.sample(costs, NOISE)
    again = oracle.sample(costs, NOISE, state=first.state)
    assert again.report[0].shape == (0, 4)
    assert again.state == ()
    for one, other in zip(first.means[0], again.means[0], strict=True):
        assert torch.equal(one, other)


class TestReliability:
    """Samples with an open gap are dropped or weighed."""

    solver = gm.DualAscent(max_iterations=1, max_gap=0.0)

    def means(self, reliability: Reliability | None) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        oracle, costs = call("lawler", self.solver)
        sampled = oracle.sample(costs, replace(NOISE, samples=24), keep=True, reliability=reliability)
        objective, bound = sampled.report[-4:-2]
        gap = ((objective - bound) / objective.abs())[0]
        return sampled.means[0], gap, sampled.kept[0][0]

    @pytest.mark.parametrize("weigh", [False, True])
    def test_weights(self, weigh: bool):
        _, gap, assignment = self.means(None)
        limit = float(gap.flatten().sort().values[30])
        mean, _, _ = self.means(Reliability(limit, weigh))
        weight = torch.where(gap <= limit, 1.0, limit / gap if weigh else 0.0)
        assert 0 < (weight == 1).double().mean() < 1
        matching = torch.nn.functional.one_hot(assignment, 4).double()
        expected = (weight[..., None, None] * matching).sum(0) / weight.sum(0).clamp(min=1e-300)[:, None, None]
        torch.testing.assert_close(mean[0], expected, rtol=1e-4, atol=1e-4)

    def test_nothing_is_left(self):
        gap = self.means(None)[1]
        below = float(gap.min()) / 2
        if below > 0:
            mean, _, _ = self.means(Reliability(below))
            assert all(each.eq(0).all() for each in mean)
        assert below > 0


_PEAK = """
import sys, resource, torch, graphmatch as gm
torch.set_num_threads(1)
layer = gm.MatchingLayer(gm.LAP(), gm.IMLE(samples=int(sys.argv[1]), noise_scale=0.1))
layer(torch.rand(2, 64, 64, generator=torch.Generator().manual_seed(0)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_samples():
    peaks = {}
    for samples in (500, 4000):
        command = [sys.executable, "-c", _PEAK, str(samples)]
        peaks[samples] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    # The copies of the costs alone would take 115 MB more.
    assert peaks[4000] - peaks[500] < 20_000
