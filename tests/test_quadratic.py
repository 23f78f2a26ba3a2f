"""`quadratic_assignment` beside SciPy's, and against enumeration."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import graphmatch as gm

METHODS = ["faq", "2opt", "tabu", "portfolio"]
# The two examples of SciPy's documentation, with their best objectives.
EXAMPLES = [
    (
        [[0, 80, 150, 170], [80, 0, 130, 100], [150, 130, 0, 120], [170, 100, 120, 0]],
        [[0, 5, 2, 7], [0, 0, 3, 8], [0, 0, 0, 3], [0, 0, 0, 0]],
        3260,
    ),
    (
        [[0, 5, 8, 6], [5, 0, 5, 1], [8, 5, 0, 2], [6, 1, 2, 0]],
        [[0, 1, 8, 4], [1, 0, 5, 2], [8, 5, 0, 5], [4, 2, 5, 0]],
        176,
    ),
]


def random_matrices(seed: int, n: int, integers: bool = False) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.random.default_rng(seed).normal(size=(2, n, n))
    return (np.rint(3 * a), np.rint(3 * b)) if integers else (a, b)


def objective(a: np.ndarray, b: np.ndarray, p: Any) -> float:
    """SciPy's definition, word for word."""
    matrix = np.eye(len(a))[np.asarray(p)]
    return float(np.trace(a.T @ matrix @ b @ matrix.T))


def enumerated(a: np.ndarray, b: np.ndarray, pairs: Any = ()) -> list[float]:
    """The objectives of all permutations that contain the pairs, from the smallest."""
    permutations = itertools.permutations(range(len(a)))
    return sorted(objective(a, b, p) for p in permutations if all(p[i] == k for i, k in pairs))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("a", "b", "best"), EXAMPLES)
def test_scipys_own_examples(method: str, a: list, b: list, best: int):
    theirs = scipy.optimize.quadratic_assignment(a, b, options={"rng": np.random.default_rng(0)})
    ours = gm.quadratic_assignment(a, b, method=method, options={"rng": np.random.default_rng(0)})
    assert ours.fun == best <= theirs.fun
    assert objective(np.array(a), np.array(b), ours.col_ind) == best
    assert enumerated(np.array(a), np.array(b))[0] == best


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_no_worse_than_scipy(seed: int, maximize: bool):
    a, b = random_matrices(seed, 9)
    for method in METHODS:
        same = method if method in ("faq", "2opt") else "faq"
        options = {"maximize": maximize, "rng": np.random.default_rng(0)}
        theirs = scipy.optimize.quadratic_assignment(a, b, same, options)
        ours = gm.quadratic_assignment(a, b, method, {"maximize": maximize})
        assert ours.fun == pytest.approx(objective(a, b, ours.col_ind))
        assert (ours.fun >= theirs.fun - 1e-9) if maximize else (ours.fun <= theirs.fun + 1e-9)


@given(seed=st.integers(0, 10**6), n=st.integers(1, 5), maximize=st.booleans(), integers=st.booleans(), data=st.data())
@settings(max_examples=40)
def test_bounds_and_optimum_with_matched_nodes(seed: int, n: int, maximize: bool, integers: bool, data: st.DataObject):
    a, b = random_matrices(seed, n, integers)
    rng = np.random.default_rng(seed)
    matched = data.draw(st.integers(0, n))
    pairs = np.stack([rng.permutation(n), rng.permutation(n)], axis=1)[:matched]
    values = enumerated(a, b, pairs)
    best = values[-1] if maximize else values[0]
    result = gm.quadratic_assignment(a, b, "portfolio", {"maximize": maximize, "partial_match": pairs})
    assert sorted(result.col_ind) == list(range(n))
    assert all(result.col_ind[i] == k for i, k in pairs)
    assert result.fun == pytest.approx(best, abs=1e-9)
    assert result.lower_bound <= best + 1e-12 * abs(best)
    assert result.upper_bound >= best - 1e-12 * abs(best)
    assert (result.lower_bound if maximize else result.upper_bound) == result.fun
    if matched == n:
        assert result.status == gm.Status.OPTIMAL
        assert not integers or result.gap == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("maximize", [False, True])
def test_matched_nodes_stay_matched(method: str, maximize: bool):
    a, b = random_matrices(5, 7)
    pairs = [[4, 0], [1, 6]]
    values = enumerated(a, b, pairs)
    result = gm.quadratic_assignment(a, b, method, {"partial_match": pairs, "maximize": maximize})
    assert [result.col_ind[4], result.col_ind[1]] == [0, 6]
    assert result.fun == pytest.approx(values[-1] if maximize else values[0])
    assert result.lower_bound <= values[0] or maximize
    scipys = {"partial_match": np.array(pairs), "maximize": maximize, "rng": np.random.default_rng(0)}
    theirs = scipy.optimize.quadratic_assignment(a, b, "faq", scipys)
    assert list(theirs.col_ind[[4, 1]]) == [0, 6]


def test_a_certificate_does_not_cover_rounding():
    a = np.array([[0, 1 / 3, 1 / 7], [1 / 3, 0, 1e8 / 3], [1 / 7, 1e8 / 3, 0]])
    result = gm.quadratic_assignment(a, a, "portfolio", {"partial_match": [[0, 2]]})
    assert result.lower_bound < result.fun
    assert result.gap < 1e-6
    whole = gm.quadratic_assignment(np.rint(a), np.rint(a), "portfolio", {"partial_match": [[0, 0], [1, 1], [2, 2]]})
    assert whole.lower_bound == whole.fun == whole.upper_bound


def test_numpy_in_numpy_out_tensor_in_tensor_out():
    a, b = random_matrices(0, 5)
    from_arrays = gm.quadratic_assignment(a, b)
    assert isinstance(from_arrays.col_ind, np.ndarray)
    assert from_arrays.col_ind.dtype == np.int64
    from_tensors = gm.quadratic_assignment(torch.tensor(a, requires_grad=True), torch.tensor(b))
    assert isinstance(from_tensors.col_ind, torch.Tensor)
    assert from_tensors.col_ind.dtype == torch.int64
    assert from_tensors.col_ind.tolist() == from_arrays.col_ind.tolist()
    mixed = gm.quadratic_assignment(torch.tensor(a).mT, np.asfortranarray(b).T)  # no contiguous memory
    assert mixed.fun == pytest.approx(from_arrays.fun)  # both transposed: the same objective
    assert isinstance(from_arrays.fun, float)
    assert isinstance(from_arrays.nit, int)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32, torch.bool]
)
def test_types_of_numbers(dtype: torch.dtype):
    a, b = (torch.tensor(matrix).mul(2).round().to(dtype) for matrix in random_matrices(1, 5))
    before = a.clone()
    result = gm.quadratic_assignment(a, b)
    assert result.fun == enumerated(a.double().numpy(), b.double().numpy())[0]
    assert torch.equal(a, before)


def test_inputs_stay_as_they_are():
    a, b = random_matrices(2, 4)
    a.setflags(write=False)
    pairs = np.array([[1, 2]])
    kept = b.copy()
    gm.quadratic_assignment(a, b, options={"partial_match": pairs, "maximize": True})
    assert np.array_equal(b, kept)
    assert pairs.tolist() == [[1, 2]]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [0, 1])
def test_small_sizes(method: str, n: int):
    result = gm.quadratic_assignment(np.full((n, n), 2.0), np.full((n, n), -3.0), method)
    assert result.col_ind.tolist() == list(range(n))
    assert result.fun == -6.0 * n
    assert str(gm.quadratic_assignment(np.zeros((n, n)), np.zeros((n, n)), options={"maximize": True}).fun) == "0.0"


def test_fields_are_read_as_from_scipys_result():
    result = gm.quadratic_assignment(*EXAMPLES[0][:2])
    assert result["fun"] == result.fun
    assert {"col_ind", "fun", "nit"} <= set(result)
    assert dict(result)["nit"] == result.nit
    with pytest.raises(KeyError, match="x"):
        result["x"]


def test_equal_calls_give_equal_answers():
    a, b = random_matrices(3, 12)
    for options in (None, {"rng": 7}, {"seed": np.int64(7)}, {"rng": np.random.default_rng(7)}):
        again = (
            {"rng": np.random.default_rng(7)}
            if options and isinstance(options.get("rng"), np.random.Generator)
            else options
        )
        first, second = gm.quadratic_assignment(a, b, options=options), gm.quadratic_assignment(a, b, options=again)
        assert np.array_equal(first.col_ind, second.col_ind)
        assert first.fun == second.fun


def test_the_answer_is_no_worse_than_the_guess(monkeypatch: pytest.MonkeyPatch):
    a, b = random_matrices(4, 6)
    best = gm.quadratic_assignment(a, b, "portfolio")
    worst = gm.quadratic_assignment(a, b, "portfolio", {"maximize": True})
    monkeypatch.setattr("graphmatch.quadratic._solver_for", lambda method, options, reduced: First(worst.col_ind))
    assert gm.quadratic_assignment(a, b, "2opt").fun == pytest.approx(worst.fun)
    guess = np.stack([np.arange(6), best.col_ind], axis=1)
    guided = gm.quadratic_assignment(a, b, "2opt", {"partial_guess": guess})
    assert guided.fun == pytest.approx(best.fun)
    assert guided.col_ind.tolist() == best.col_ind.tolist()
    most = gm.quadratic_assignment(a, b, "2opt", {"partial_guess": guess[:5]})  # one way is left for the sixth
    assert most.col_ind.tolist() == best.col_ind.tolist()
    # A match that contradicts the guess is kept.
    monkeypatch.undo()
    fixed = [[0, int(best.col_ind[1])]]
    both = gm.quadratic_assignment(a, b, "2opt", {"partial_guess": guess, "partial_match": fixed})
    assert both.col_ind[0] == fixed[0][1]
    assert both.fun == pytest.approx(enumerated(a, b, fixed)[0])


class First:
    """A solver that answers the same permutation always."""

    def __init__(self, permutation: np.ndarray):
        self.permutation = torch.from_numpy(permutation)[None]

    def solve(self, problem: gm.KoopmansBeckmannProblem) -> gm.MatchResult:
        nothing = torch.zeros(1, dtype=torch.float64)
        status = torch.full((1,), int(gm.Status.FEASIBLE))
        return gm.MatchResult(problem, self.permutation, nothing, nothing - torch.inf, status, status)


def test_options_reach_the_solver():
    a, b = random_matrices(0, 4)
    for method in METHODS:
        assert gm.quadratic_assignment(a, b, method.upper(), {"time_limit": 5.0, "max_gap": 0.5}).fun < 0
        with pytest.raises(ValueError, match="time_limit must be positive seconds"):
            gm.quadratic_assignment(a, b, method, {"time_limit": -1})
        with pytest.raises(ValueError, match="max_gap must be at least 0"):
            gm.quadratic_assignment(a, b, method, {"max_gap": -1})
    scipys = {"P0": np.full((3, 3), 1 / 3), "shuffle_input": True, "maxiter": 5, "tol": 0.1, "partial_match": [[0, 0]]}
    assert gm.quadratic_assignment(a, b, options=scipys).col_ind[0] == 0
    assert gm.quadratic_assignment(a, b, options={"P0": "randomized"}).fun < 0


GOOD = np.eye(3)


@pytest.mark.parametrize(
    ("a", "b", "error", "text"),
    [
        (np.ones((2, 3)), GOOD, ValueError, r"A must be a square matrix \(n, n\); got shape \(2, 3\)"),
        (GOOD, np.ones(3), ValueError, r"B must be a square matrix"),
        (np.ones((1, 3, 3)), GOOD, ValueError, "A must be a square matrix"),
        (GOOD, np.eye(4), ValueError, r"A and B must have the same size; got \(3, 3\) and \(4, 4\)"),
        (GOOD * np.nan, GOOD, ValueError, "A must hold finite costs"),
        (GOOD, np.full((3, 3), np.inf), ValueError, "B must hold finite costs"),
        (GOOD * 1j, GOOD, TypeError, "A must hold real numbers; got ndarray"),
        (torch.eye(3) * 1j, GOOD, TypeError, "A must hold real numbers"),
        (GOOD, [["x"] * 3] * 3, TypeError, "B must hold real numbers"),
        (GOOD, [[1, 2], [3]], TypeError, "B must hold real numbers"),
        (None, GOOD, ValueError, "A must be a square matrix"),
        (torch.eye(3, device="meta"), GOOD, ValueError, "A must be on the CPU; got device meta"),
        (torch.eye(3).to_sparse(), GOOD, TypeError, "A must hold real numbers"),
    ],
)
def test_what_is_no_matrix_is_refused(a: Any, b: Any, error: type[Exception], text: str):
    with pytest.raises(error, match=f"quadratic_assignment: {text}"):
        gm.quadratic_assignment(a, b)


@pytest.mark.parametrize(
    ("method", "options", "error", "text"),
    [
        ("sinkhorn", {}, ValueError, "method must be one of 'faq', '2opt', 'tabu', 'portfolio'; got 'sinkhorn'"),
        (None, {}, ValueError, "method must be one of"),
        ("faq", [], TypeError, "options must be a mapping"),
        ("faq", {"maximise": True}, ValueError, "options must hold the options of method 'faq' only: maximize, "),
        ("portfolio", {"tol": 0.1}, ValueError, "options must hold the options of method 'portfolio' only"),
        ("faq", {"partial_guess": [[0, 0]]}, ValueError, "options must hold"),
        ("faq", {"maximize": 1}, TypeError, "maximize must be True or False; got 1"),
        ("faq", {"shuffle_input": "no"}, TypeError, "shuffle_input must be True or False"),
        ("faq", {"partial_match": [0, 1]}, ValueError, r"partial_match must be a matrix \(m, 2\) of integers"),
        ("faq", {"partial_match": [[0.5, 1]]}, ValueError, r"partial_match must be a matrix \(m, 2\) of integers"),
        ("faq", {"partial_match": [[0, 3]]}, ValueError, r"partial_match must hold nodes in \[0, 3\); got 0 to 3"),
        ("faq", {"partial_match": [[-1, 0]]}, ValueError, "partial_match must hold nodes in"),
        ("faq", {"partial_match": [[0, 0], [0, 1]]}, ValueError, "partial_match must name each node once"),
        ("faq", {"partial_match": [[0, 1], [1, 1]]}, ValueError, "partial_match must name each node once"),
        ("2opt", {"partial_guess": [[0, 1], [1, 1]]}, ValueError, "partial_guess must name each node once"),
        ("faq", {"rng": "0"}, TypeError, "rng must be a whole number or a numpy.random.Generator"),
        ("faq", {"rng": 1, "seed": 1}, ValueError, "rng must not come together with seed"),
        ("faq", {"seed": -1}, ValueError, "seed must lie in"),
        ("faq", {"P0": "random"}, ValueError, "P0 must be"),
        ("faq", {"P0": np.eye(2)}, ValueError, r"P0 must be a matrix \(3, 3\)"),
        ("faq", {"P0": np.ones((3, 3))}, ValueError, "P0 must be doubly stochastic"),
        ("faq", {"P0": 2 * np.eye(3) - 1 / 3}, ValueError, "P0 must be doubly stochastic"),
        ("faq", {"maxiter": 0}, ValueError, "maxiter must be positive"),
        ("faq", {"maxiter": 1.5}, TypeError, "maxiter must be a number"),
        ("faq", {"tol": 0}, ValueError, "tol must be positive"),
        ("faq", {"tol": float("nan")}, ValueError, "tol must be positive"),
    ],
)
def test_options_that_make_no_sense_are_refused(method: Any, options: Any, error: type[Exception], text: str):
    with pytest.raises(error, match=f"quadratic_assignment: {text}"):
        gm.quadratic_assignment(GOOD, GOOD, method, options)


def test_faq_begins_where_it_is_told():
    a, b = random_matrices(5, 8)
    best = gm.quadratic_assignment(a, b, "portfolio")
    start = np.eye(8)[best.col_ind]
    assert gm.quadratic_assignment(a, b, "faq", {"P0": start}).fun == pytest.approx(best.fun)
    for point in ("barycenter", "randomized"):
        answers = [gm.quadratic_assignment(a, b, "faq", {"P0": point, "seed": 3}).col_ind.tolist() for _ in range(2)]
        assert answers[0] == answers[1]
