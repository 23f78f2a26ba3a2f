"""Ragged batches: stacking problems of different sizes changes none of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import graphmatch as gm

ERROR_FORM = r"^stack_problems: .+ must .+; got .+\. \S.*\.$"
SHAPES = [(4, 4, 6, 5), (2, 5, 3, 7), (5, 1, 0, 2), (0, 3, 0, 1), (3, 0, 2, 0)]


@pytest.mark.parametrize("unmatched_cost", [None, 0.2])
@pytest.mark.parametrize("kind", ["linear", "lawler"])
def test_a_stack_answers_as_its_problems_do(make_problem: Callable, kind: str, unmatched_cost: float | None):
    problems = [
        make_problem(kind, seed, batch=1 + seed % 2, n1=n1, n2=n2, e1=e1, e2=e2, unmatched_cost=unmatched_cost)
        for seed, (n1, n2, e1, e2) in enumerate(SHAPES)
    ]
    stacked = gm.stack_problems(problems)
    assert stacked.batch_size == sum(problem.batch_size for problem in problems)
    result = gm.solve(stacked)
    start = 0
    for problem in problems:
        alone = gm.solve(problem)
        rows = slice(start, start + problem.batch_size)
        n1 = alone.assignment.shape[1]
        assert torch.equal(result.assignment[rows, :n1], alone.assignment)
        assert result.assignment[rows, n1:].eq(-1).all()
        assert torch.equal(result.objective[rows], alone.objective)
        assert torch.equal(result.lower_bound[rows], alone.lower_bound)
        start += problem.batch_size


def test_stacks_can_be_stacked(make_problem: Callable):
    small, large = make_problem("lawler", 0, n1=2, n2=3), make_problem("lawler", 1, n1=4, n2=4)
    once = gm.stack_problems([small, large, small])
    twice = gm.stack_problems([gm.stack_problems([small, large]), small])
    assert torch.equal(once.sizes, twice.sizes)
    assert torch.equal(gm.solve(once).objective, gm.solve(twice).objective)


def test_gradients_flow_back_to_each_problem():
    costs = [torch.rand(1, n, n, requires_grad=True) for n in (2, 4)]
    stacked = gm.stack_problems([gm.LinearProblem(each) for each in costs])
    (2 * stacked.costs).sum().backward()
    for each in costs:
        assert torch.equal(each.grad, torch.full_like(each, 2.0))


def test_one_problem_is_a_stack(make_problem: Callable):
    problem = make_problem("lawler", 2)
    assert torch.equal(gm.solve(gm.stack_problems([problem])).assignment, gm.solve(problem).assignment)


@pytest.mark.parametrize(
    ("problems", "error"),
    [
        (lambda make: [], ValueError),
        (lambda make: [make("koopmans_beckmann", 0)], TypeError),
        (lambda make: [torch.eye(3)], TypeError),
        (lambda make: [make("linear", 0), make("lawler", 0)], ValueError),
        (lambda make: [make("linear", 0), make("linear", 0, unmatched_cost=0.0)], ValueError),
        (lambda make: [make("linear", 0), make("linear", 0, dtype=torch.float32)], ValueError),
    ],
)
def test_what_cannot_be_stacked(make_problem: Callable, problems: Callable, error: type[Exception]):
    with pytest.raises(error, match=ERROR_FORM):
        gm.stack_problems(problems(make_problem))
