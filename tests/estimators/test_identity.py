"""The negative identity and its projections, against projections by linear algebra."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import graphmatch as gm


def residual(gradient: Tensor, directions: list[Tensor]) -> Tensor:
    """The part of a gradient that is orthogonal to all directions, by least squares."""
    basis = torch.stack([each.flatten() for each in directions], 1)
    fit = torch.linalg.lstsq(basis, gradient.flatten()[:, None], driver="gelsd").solution
    return gradient - (basis @ fit)[:, 0].reshape(gradient.shape)


def offsets(allowed: Tensor, rows: bool, columns: bool) -> list[Tensor]:
    """Indicators of the rows and columns of a matrix, restricted to its allowed entries."""
    found = []
    for axis, wanted in ((0, rows), (1, columns)):
        for line in range(allowed.shape[axis] if wanted else 0):
            mask = torch.zeros_like(allowed)
            mask.select(axis, line).fill_(True)
            found.append((mask & allowed).double())
    return found


@pytest.mark.parametrize(("n1", "n2"), [(4, 4), (3, 5), (5, 3)])
@pytest.mark.parametrize("forbidden", [False, True])
def test_projections_take_off_what_no_matching_depends_on(n1: int, n2: int, forbidden: bool, make_case: type):
    case = make_case(30, n1, n2)
    allowed = torch.ones(n1, n2, dtype=torch.bool)
    if forbidden:
        allowed[0, 1] = allowed[2, 0] = False
        case.unary = case.unary.detach().masked_fill(~allowed, torch.inf).requires_grad_()
    gradients = case.gradients(gm.MatchingLayer(gm.BruteForce(), gm.NegativeIdentity()))
    for problem in range(case.batch):
        expected = residual(
            torch.where(allowed, -case.weights[0][problem], 0), offsets(allowed, rows=n1 <= n2, columns=n1 >= n2)
        )
        tolerance = 1e-2 if forbidden and n1 == n2 else 1e-12  # sweeps, or the exact means
        torch.testing.assert_close(gradients[0][problem], expected, rtol=0, atol=tolerance)
        assert gradients[0][problem][~allowed].eq(0).all()
        pairs = case.weights[1][problem]
        torch.testing.assert_close(gradients[1][problem], pairs.mean() - pairs)


def test_problems_of_a_padded_batch_are_projected_by_their_own_sizes(make_case: type):
    case = make_case(31, 5, 5)
    sizes = torch.tensor([[5, 5], [2, 4], [4, 3]])
    layer = gm.MatchingLayer(gm.LAP(), gm.NegativeIdentity())
    gradient = torch.autograd.grad((case.weights[0] * layer(case.unary, sizes=sizes)).sum(), case.unary)[0]
    for problem, (n1, n2) in enumerate(sizes.tolist()):
        allowed = torch.ones(n1, n2, dtype=torch.bool)
        real = -case.weights[0][problem, :n1, :n2]
        torch.testing.assert_close(
            gradient[problem, :n1, :n2], residual(real, offsets(allowed, rows=n1 <= n2, columns=n1 >= n2))
        )
        assert gradient[problem].abs().sum() == pytest.approx(gradient[problem, :n1, :n2].abs().sum().item())


@pytest.mark.parametrize("estimator", [gm.NegativeIdentity(project=False), gm.NegativeIdentity()])
def test_nothing_is_taken_off_unary_costs_that_count(estimator: gm.NegativeIdentity, make_case: type):
    case = make_case(32)
    layer = gm.MatchingLayer(gm.BruteForce(), estimator, unmatched_cost=0.1)
    unary, quadratic = case.gradients(layer)
    assert torch.equal(unary, -case.weights[0])
    mean = case.weights[1].mean((1, 2), keepdim=True) if estimator.project else 0.0
    torch.testing.assert_close(quadratic, mean - case.weights[1])


@pytest.mark.parametrize("project", [True, False])
def test_normalised_gradients_do_not_rescale_the_costs(project: bool, make_case: type):
    case = make_case(33)
    plain = case.gradients(gm.MatchingLayer(gm.BruteForce(), gm.NegativeIdentity(project)))
    found = case.gradients(gm.MatchingLayer(gm.BruteForce(), gm.NegativeIdentity(project, normalise=True)))
    for problem in range(case.batch):
        unary, quadratic = (cost[problem].detach() for cost in case.costs)
        if project:
            unary = residual(unary, offsets(torch.ones(4, 4, dtype=torch.bool), rows=True, columns=True))
            quadratic = quadratic - quadratic.mean()
        both = torch.cat([unary.flatten(), quadratic.flatten()])
        gradient = torch.cat([each[problem].flatten() for each in plain])
        expected = gradient - both * (both @ gradient) / (both @ both)
        torch.testing.assert_close(torch.cat([each[problem].flatten() for each in found]), expected)
        assert (expected - gradient).norm() > 0.01 * gradient.norm()


def test_costs_have_the_gradient_of_their_own_solution_only(make_case: type):
    case = make_case(34)
    matching, _ = gm.MatchingLayer(gm.BruteForce(), gm.NegativeIdentity())(*case.arguments())
    gradients = torch.autograd.grad(matching.square().sum(), case.costs, allow_unused=True)
    assert gradients[0].abs().sum() > 0
    assert gradients[1] is None
