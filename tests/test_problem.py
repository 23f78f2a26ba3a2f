"""Problems refuse bad input with a sentence, and know their sizes."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import graphmatch as gm
from graphmatch import _reference

ERROR_FORM = r"^\S.*: .+ must .+; got .+\. \S.*\.$"


def lawler(**changes: object) -> gm.LawlerProblem:
    """A valid problem of 2 x (3 nodes against 4, 2 edges against 3), with changes."""
    edges = {"edges1": torch.tensor([[0, 1], [1, 2]]), "edges2": torch.tensor([[0, 1], [2, 3], [3, 0]])}
    arguments = {"unary_costs": torch.zeros(2, 3, 4), "quadratic_costs": torch.zeros(2, 2, 3), **edges, **changes}
    return gm.LawlerProblem(**arguments)


def linear(**changes: object) -> gm.LinearProblem:
    return gm.LinearProblem(**{"costs": torch.zeros(2, 3, 4), **changes})


def dense(**changes: object) -> gm.KoopmansBeckmannProblem:
    return gm.KoopmansBeckmannProblem(**{"flow": torch.zeros(2, 3, 3), "distance": torch.zeros(2, 3, 3), **changes})


def filled(shape: tuple[int, ...], value: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Zeros with one other value, in the last place."""
    tensor = torch.zeros(shape, dtype=dtype)
    tensor.view(-1)[-1] = value
    return tensor


def batched(edges: list[list[int]]) -> Tensor:
    return torch.tensor([edges, edges])


BAD = [
    # (what is built, the kind of error, the argument it names)
    (lambda: lawler(unary_costs=[[0.0]]), TypeError, "unary_costs"),
    (lambda: lawler(unary_costs=torch.zeros(3, 4)), ValueError, "unary_costs"),
    (lambda: lawler(unary_costs=torch.zeros(2, 3, 4, dtype=torch.int64)), TypeError, "unary_costs"),
    (lambda: lawler(unary_costs=torch.zeros(2, 3, 4, dtype=torch.complex64)), TypeError, "unary_costs"),
    (lambda: lawler(unary_costs=torch.zeros(2, 3, 4).double()), TypeError, "quadratic_costs"),
    (lambda: lawler(unary_costs=filled((2, 3, 4), math.nan)), ValueError, "unary_costs"),
    (lambda: lawler(unary_costs=filled((2, 3, 4), -math.inf)), ValueError, "unary_costs"),
    (lambda: lawler(quadratic_costs=torch.zeros(2, 3, 2)), ValueError, "quadratic_costs"),
    (lambda: lawler(quadratic_costs=torch.zeros(1, 2, 3)), ValueError, "quadratic_costs"),
    (lambda: lawler(quadratic_costs=filled((2, 2, 3), math.inf)), ValueError, "quadratic_costs"),
    (lambda: lawler(quadratic_costs=filled((2, 2, 3), math.nan)), ValueError, "quadratic_costs"),
    (lambda: lawler(edges1=[[0, 1], [1, 2]]), TypeError, "edges1"),
    (lambda: lawler(edges1=torch.tensor([[0, 1], [1, 2]]).int()), TypeError, "edges1"),
    (lambda: lawler(edges1=torch.tensor([[0, 1], [1, 3]])), ValueError, "edges1"),
    (lambda: lawler(edges1=torch.tensor([[0, 1], [-1, 2]])), ValueError, "edges1"),
    (lambda: lawler(edges1=torch.tensor([[0, 1, 2], [1, 2, 0]])), ValueError, "edges1"),
    (lambda: lawler(edges1=torch.tensor([0, 1])), ValueError, "edges1"),
    (lambda: lawler(edges2=batched([[0, 1], [2, 3], [3, 4]])), ValueError, "edges2"),
    (lambda: lawler(edges2=torch.zeros(3, 3, 2, dtype=torch.int64)), ValueError, "edges2"),
    (lambda: lawler(sizes=torch.tensor([[3, 4, 2, 3]])), ValueError, "sizes"),
    (lambda: lawler(sizes=torch.tensor([[3, 4, 2, 3]] * 2).float()), TypeError, "sizes"),
    (lambda: lawler(sizes=torch.tensor([[3, 5, 2, 3]] * 2)), ValueError, "sizes"),
    (lambda: lawler(sizes=torch.tensor([[3, 4, 2, -1]] * 2)), ValueError, "sizes"),
    (lambda: lawler(sizes=torch.tensor([[3, 4]] * 2)), ValueError, "sizes"),
    # Edge (1, 2) leaves a graph of two nodes.
    (lambda: lawler(sizes=torch.tensor([[3, 4, 2, 3], [2, 4, 2, 3]])), ValueError, "edges1"),
    (lambda: lawler(unmatched_cost=math.inf), ValueError, "unmatched_cost"),
    (lambda: lawler(unmatched_cost=math.nan), ValueError, "unmatched_cost"),
    (lambda: lawler(unmatched_cost="0"), TypeError, "unmatched_cost"),
    (lambda: lawler(unmatched_cost=True), TypeError, "unmatched_cost"),
    (lambda: lawler(unary_costs=torch.zeros(2, 3, 4, device="meta")), ValueError, "all tensors"),
    (lambda: linear(costs=torch.zeros(3)), ValueError, "costs"),
    (lambda: linear(costs=None), TypeError, "costs"),
    (lambda: linear(costs=torch.zeros(2, 3, 4).bool()), TypeError, "costs"),
    (lambda: linear(costs=filled((2, 3, 4), math.nan)), ValueError, "costs"),
    (lambda: linear(costs=filled((2, 3, 4), -math.inf)), ValueError, "costs"),
    (lambda: linear(costs=filled((2, 3, 4), 1e200, torch.float64)), ValueError, "costs"),
    (lambda: linear(sizes=torch.tensor([3, 4])), ValueError, "sizes"),
    (lambda: linear(sizes=torch.tensor([[4, 4]] * 2)), ValueError, "sizes"),
    (lambda: linear(sizes=[[3, 4]] * 2), TypeError, "sizes"),
    (lambda: dense(flow=torch.zeros(2, 3, 4)), ValueError, "flow"),
    (lambda: dense(flow=torch.zeros(3, 3)), ValueError, "flow"),
    (lambda: dense(distance=torch.zeros(2, 4, 4)), ValueError, "distance"),
    (lambda: dense(distance=torch.zeros(2, 3, 3).double()), TypeError, "distance"),
    (lambda: dense(distance=filled((2, 3, 3), math.inf)), ValueError, "distance"),
    (lambda: dense(distance=1.0), TypeError, "distance"),
    (lambda: dense(linear=torch.zeros(2, 2, 2)), ValueError, "linear"),
    (lambda: dense(linear=filled((2, 3, 3), math.nan)), ValueError, "linear"),
    (lambda: dense(sizes=torch.tensor([3])), ValueError, "sizes"),
    (lambda: dense(sizes=torch.tensor([3, 4])), ValueError, "sizes"),
]


@pytest.mark.parametrize(("build", "error", "argument"), BAD)
def test_bad_input_gives_one_clear_sentence(build: Callable, error: type[Exception], argument: str):
    with pytest.raises(error, match=ERROR_FORM) as caught:
        build()
    assert f": {argument} must" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_errors_name_the_place_and_the_value():
    costs = torch.zeros(2, 3, 4)
    costs[1, 2, 0] = math.nan
    with pytest.raises(ValueError, match=r"got nan at index \[1, 2, 0\]"):
        linear(costs=costs)
    with pytest.raises(ValueError, match=r"in \[0, 3\); got 7 at index \[0, 1, 0\]"):
        lawler(edges1=torch.tensor([[0, 1], [7, 2]]))
    with pytest.raises(ValueError, match=r"tensor\[None\]"):
        lawler(unary_costs=torch.zeros(3, 4))


def test_infinity_forbids_assignments_only():
    assert linear(costs=filled((2, 3, 4), math.inf)).batch_size == 2
    assert lawler(unary_costs=filled((2, 3, 4), math.inf)).batch_size == 2
    assert dense(linear=filled((2, 3, 3), math.inf)).batch_size == 2


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf])
def test_padding_may_hold_anything(garbage: float):
    edges = torch.tensor([[0, 1], [1, 99]])
    problem = lawler(
        unary_costs=filled((2, 3, 4), garbage),
        quadratic_costs=filled((2, 2, 3), garbage),
        edges1=edges,
        sizes=torch.tensor([[2, 3, 1, 1]] * 2),
    )
    counts = problem.node_counts()
    assert [count.tolist() for count in counts] == [[2, 2], [3, 3]]
    assert linear(costs=filled((2, 3, 4), garbage), sizes=torch.tensor([[3, 3], [2, 4]])).batch_size == 2
    bad = filled((2, 3, 3), garbage)
    assert dense(flow=bad, distance=bad, linear=bad, sizes=torch.tensor([3, 2])).batch_size == 2


def test_edges_shared_by_the_batch_become_a_view():
    edges = torch.tensor([[0, 1], [1, 2]])
    problem = lawler(edges1=edges)
    assert problem.edges1.shape == (2, 2, 2)
    assert problem.edges1.data_ptr() == edges.data_ptr()


def test_node_counts_without_sizes():
    assert [count.tolist() for count in lawler().node_counts()] == [[3, 3], [4, 4]]
    assert [count.tolist() for count in linear().node_counts()] == [[3, 3], [4, 4]]
    assert [count.tolist() for count in dense().node_counts()] == [[3, 3], [3, 3]]


def test_with_costs_keeps_everything_else():
    problem = lawler(sizes=torch.tensor([[3, 4, 2, 3]] * 2), unmatched_cost=0.5)
    other = problem.with_costs(torch.ones(2, 3, 4), torch.ones(2, 2, 3))
    assert other.unary_costs.eq(1).all()
    assert other.sizes is problem.sizes
    assert other.unmatched_cost == 0.5
    with pytest.raises(ValueError, match="quadratic_costs must have shape"):
        problem.with_costs(torch.ones(2, 3, 4), torch.ones(2, 3, 3))


def test_problems_cannot_be_changed():
    with pytest.raises(AttributeError):
        linear().costs = torch.ones(2, 3, 4)


@pytest.mark.parametrize("sizes", [None, torch.tensor([4, 2])])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_lawler_form_of_a_dense_problem_costs_the_same(
    rng: torch.Generator, sizes: Tensor | None, dtype: torch.dtype
):
    # Products of these overflow half precision.
    flow, distance, costs = (300 * torch.randn(2, 4, 4, generator=rng).to(dtype) for _ in range(3))
    problem = gm.KoopmansBeckmannProblem(flow, distance, costs, sizes)
    second = [2, 0, 3, 1] if sizes is None else [1, 0, -1, -1]
    assignment = torch.tensor([[3, 1, 0, 2], second])
    expected = _reference.objective(problem, assignment)
    total = _reference.objective(problem.to_lawler(), assignment)
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-9)

    by_hand = sum(
        float(flow[0, i, j]) * float(distance[0, assignment[0, i], assignment[0, j]])
        for i in range(4)
        for j in range(4)
    ) + sum(float(costs[0, i, assignment[0, i]]) for i in range(4))
    assert expected[0].item() == pytest.approx(by_hand, rel=1e-12)


def test_reference_objective_of_a_lawler_problem_by_hand():
    edges = torch.tensor([[0, 1], [1, 0], [0, 1], [2, 2]])
    quadratic = torch.arange(16.0).reshape(1, 4, 4)
    problem = gm.LawlerProblem(torch.arange(9.0).reshape(1, 3, 3), quadratic, edges, edges, unmatched_cost=100.0)
    # Nodes 0 and 1 keep their places: edges 0 and 2 lie on 0 and 2, edge 1 on itself; node 2 stays unmatched.
    paid = quadratic[0, [0, 0, 2, 2, 1], [0, 2, 0, 2, 1]].sum()
    total = _reference.objective(problem, torch.tensor([[0, 1, -1]]))
    assert total.item() == 0.0 + 4.0 + paid.item() + 100.0
    # All in place: the loop on node 2 pays too.
    total = _reference.objective(problem, torch.tensor([[0, 1, 2]]))
    assert total.item() == 0.0 + 4.0 + 8.0 + paid.item() + 15.0
