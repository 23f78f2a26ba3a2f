"""Affinity matrices: pygmtools' order of the pairs by hand, objectives of every matching, gradients."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import graphmatch as gm
from graphmatch import _reference

# build_aff_mat of pygmtools 0.6.0 with the node affinities [[1, 2, 3], [4, 5, 6]], the edge 0 -> 1 in graph 1, the
# edges 0 -> 1 and 2 -> 0 in graph 2, and the edge affinities 70 and 80.
PYGMTOOLS = [
    [1, 0, 0, 70, 0, 0],
    [0, 4, 0, 0, 0, 0],
    [0, 0, 2, 0, 0, 0],
    [0, 0, 0, 5, 0, 0],
    [0, 80, 0, 0, 3, 0],
    [0, 0, 0, 0, 0, 6],
]


def matchings(n1: int, n2: int) -> torch.Tensor:
    """Every matching (m, n1), complete or not."""
    rows = [
        images
        for images in itertools.product(range(-1, n2), repeat=n1)
        if len({k for k in images if k >= 0}) == sum(k >= 0 for k in images)
    ]
    return torch.tensor(rows).reshape(len(rows), n1)


def earned(affinity: torch.Tensor, assignment: torch.Tensor, n2: int) -> float:
    """x^T K x with the columns of the matching matrix below each other."""
    matrix = (assignment[:, None] == torch.arange(n2)).to(affinity.dtype)
    x = torch.cat([matrix[:, k] for k in range(n2)]) if n2 else matrix.new_zeros(0)
    return float(x @ affinity @ x)


def test_the_order_is_that_of_pygmtools():
    problem = gm.io.from_affinity_matrix(torch.tensor(PYGMTOOLS, dtype=torch.float64), 2, 3)
    assert problem.unary_costs.tolist() == [[[-1, -2, -3], [-4, -5, -6]]]
    assert problem.edges1.tolist() == [[[0, 1]]]
    assert problem.edges2.tolist() == [[[0, 1], [2, 0]]]
    assert problem.quadratic_costs.tolist() == [[[-70, -80]]]
    result = gm.solve(problem)
    assert result.assignment.tolist() == [[2, 0]]
    assert result.objective.tolist() == [-(3 + 4 + 80)]


@given(seed=st.integers(0, 10**6), n1=st.integers(0, 3), n2=st.integers(0, 3), density=st.sampled_from([0.1, 0.5, 1.0]))
@settings(max_examples=40)
def test_every_matching_costs_what_it_does_not_earn(seed: int, n1: int, n2: int, density: float):
    generator = torch.Generator().manual_seed(seed)
    affinity = torch.randn(2, n1 * n2, n1 * n2, generator=generator, dtype=torch.float64)
    affinity = affinity * (torch.rand(affinity.shape, generator=generator) < density)
    problem = gm.io.from_affinity_matrix(affinity, n1, n2, unmatched_cost=0.0)
    again = gm.io.to_affinity_matrix(problem)
    assert torch.equal(again, again.mT)
    assert problem.edges1.shape[1] <= max(n1 * (n1 - 1) // 2, 0)
    for assignment in matchings(n1, n2):
        objective = _reference.objective(problem, assignment.expand(2, n1))
        for place in range(2):
            assert earned(affinity[place], assignment, n2) == pytest.approx(-float(objective[place]), abs=1e-9)
            assert earned(again[place], assignment, n2) == pytest.approx(-float(objective[place]), abs=1e-9)


@given(
    seed=st.integers(0, 10**6), n1=st.integers(1, 3), n2=st.integers(1, 3), e1=st.integers(0, 6), e2=st.integers(0, 6)
)
@settings(max_examples=40)
def test_problems_become_matrices(make_problem: Callable[..., Any], seed: int, n1: int, n2: int, e1: int, e2: int):
    # Random edges: with loops, repeated ones and both directions.
    problem = make_problem("lawler", seed, n1=n1, n2=n2, e1=e1, e2=e2, unmatched_cost=0.0)
    affinity = gm.io.to_affinity_matrix(problem)
    assert torch.equal(affinity, affinity.mT)
    again = gm.io.from_affinity_matrix(affinity, n1, n2, unmatched_cost=0.0)
    for assignment in matchings(n1, n2):
        objective = _reference.objective(problem, assignment.expand(2, n1))
        torch.testing.assert_close(_reference.objective(again, assignment.expand(2, n1)), objective)
        for place in range(2):
            assert earned(affinity[place], assignment, n2) == pytest.approx(-float(objective[place]), abs=1e-9)


def test_only_pairs_that_occur_become_edges():
    affinity = torch.zeros(9, 9)
    affinity[0 * 3 + 2, 1 * 3 + 0] = 1.0  # nodes 2 -> 0 and 0 -> 1: as the edge (0, 2) on (1, 0)
    affinity[0, 1] = affinity[0, 3] = 5.0  # share a node
    problem = gm.io.from_affinity_matrix(affinity, 3, 3)
    assert problem.edges1.tolist() == [[[0, 2]]]
    assert [1, 0] in problem.edges2[0].tolist()
    assert problem.quadratic_costs.sum() == -1
    assert problem.quadratic_costs.numel() <= 2


def test_padding_earns_nothing(make_problem: Callable[..., Any]):
    problems = [make_problem("lawler", n, batch=1, n1=n, n2=n, e1=3 * n, e2=n + 1) for n in (2, 3)]
    stacked = gm.stack_problems(problems)
    noisy = replace(stacked, unary_costs=stacked.unary_costs.clone(), edges1=stacked.edges1.clone())
    noisy.unary_costs[0, 2:] = torch.nan
    noisy.edges1[0, 6:] = 99
    affinity = gm.io.to_affinity_matrix(noisy).reshape(2, 3, 3, 3, 3)
    alone = gm.io.to_affinity_matrix(problems[0]).reshape(2, 2, 2, 2)
    assert torch.equal(affinity[0, :2, :2, :2, :2], alone)
    assert affinity[0].count_nonzero() == alone.count_nonzero()
    assert torch.equal(affinity[1].reshape(1, 9, 9), gm.io.to_affinity_matrix(problems[1]))


def test_gradients_flow_both_ways():
    affinity = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def costs(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        problem = gm.io.from_affinity_matrix(matrix, 2, 3)
        return problem.unary_costs, problem.quadratic_costs

    def there_and_back(matrix: torch.Tensor) -> torch.Tensor:
        return gm.io.to_affinity_matrix(gm.io.from_affinity_matrix(matrix, 2, 3))

    assert torch.autograd.gradcheck(costs, affinity)
    assert torch.autograd.gradcheck(there_and_back, affinity)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes_and_strides(dtype: torch.dtype):
    matrix = torch.tensor(PYGMTOOLS, dtype=dtype)
    kept = matrix.clone()
    problem = gm.io.from_affinity_matrix(matrix, 2, 3)
    assert problem.unary_costs.dtype == problem.quadratic_costs.dtype == dtype
    assert gm.io.to_affinity_matrix(problem).dtype == dtype
    strided = gm.io.from_affinity_matrix(torch.stack([matrix, matrix], dim=2)[..., 0], 2, 3)
    assert torch.equal(strided.quadratic_costs, problem.quadratic_costs)
    assert torch.equal(matrix, kept)
    none = gm.io.from_affinity_matrix(torch.zeros(0, 6, 6, dtype=dtype), 2, 3)
    assert gm.io.to_affinity_matrix(none).shape == (0, 6, 6)


@pytest.mark.parametrize(
    ("affinity", "sizes", "error", "text"),
    [
        (torch.zeros(6, 6), (2, 2), ValueError, r"affinity must have shape \(1, 4, 4\)"),
        (torch.zeros(6, 5), (2, 3), ValueError, "affinity must have shape"),
        (torch.zeros(6), (2, 3), ValueError, "affinity must have shape"),
        (torch.zeros(6, 6, dtype=torch.int64), (2, 3), TypeError, "affinity must be a floating-point tensor"),
        ([[0.0]], (1, 1), TypeError, "affinity must be a torch.Tensor"),
        (torch.full((1, 1), torch.inf), (1, 1), ValueError, "affinity must hold finite costs"),
        (torch.full((1, 1), torch.nan), (1, 1), ValueError, "affinity must hold finite costs"),
        (torch.zeros(6, 6), (torch.tensor([2]), 3), TypeError, "n1 must be an int"),
        (torch.zeros(6, 6), (2, 3.0), TypeError, "n2 must be an int"),
        (torch.zeros(6, 6), (-2, -3), ValueError, "n1 must be at least 0"),
    ],
)
def test_what_is_no_affinity_matrix_is_refused(affinity: Any, sizes: Any, error: type[Exception], text: str):
    with pytest.raises(error, match=f"from_affinity_matrix: {text}"):
        gm.io.from_affinity_matrix(affinity, *sizes)


def test_a_problem_without_a_matrix_is_refused(make_problem: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    good = make_problem("lawler", 0)
    for problem, error, text in [
        (make_problem("koopmans_beckmann", 0), TypeError, "problem must be a LawlerProblem"),
        (replace(good, unmatched_cost=1.0), ValueError, "problem must have an unmatched_cost of None or 0.0; got 1.0"),
        (make_problem("lawler", 0, forbidden=0.9), ValueError, "problem.unary_costs must be finite"),
    ]:
        with pytest.raises(error, match=f"to_affinity_matrix: {text}"):
            gm.io.to_affinity_matrix(problem)
    monkeypatch.setattr("graphmatch._check.os.sysconf", lambda name: 10)
    with pytest.raises(ValueError, match=r"to_affinity_matrix: the problem must fit into"):
        gm.io.to_affinity_matrix(good)
