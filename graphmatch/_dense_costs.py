"""Costs of dense problems as searches share them, and the bound of Gilmore and Lawler: by tensor operations only.

What csrc/core/qap_costs.hpp and qap_bound.hpp do for one problem, for a batch on the device where it lies and without
waiting for that device: no `torch.where` with a Python number, which would copy it there. Costs stay in the problems'
own units.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphmatch import _ops

# As in csrc/core/qap_costs.cpp: integers that float and double hold, bits of a double, exponents of valid costs.
_FLOAT_INTEGERS = 2.0**24
_DOUBLE_INTEGERS = 2.0**52
_DIGITS = 53
_LARGEST_EXPONENT = 400
# Exponents beyond which products might leave the range of float, and powers of two that of double.
_FLOAT_EXPONENT = 60
_DOUBLE_EXPONENT = 1000
_NOISE = 1e-12  # as in csrc/core/qap_tabu.cpp


@dataclass(frozen=True)
class DenseCosts:
    """Costs of a batch without loops, symmetric where possible, forbidden assignments at a penalty; padding is zero.

    Args:
        valid: (b,) whether the numbers keep the contract; problems where they do not are emptied.
        sizes: (b,) int64 numbers of nodes.
        flow: (b, n, n) float64.
        distance: (b, n, n) float64.
        linear: (b, n, n) float64, with the penalty.
        forbidden: (b, n, n) bool.
        symmetric: (b,) whether flow and distance are, so that each pair counts half.
        unit: (b,) the power of two that all costs are multiples of, where they are `integral`.
        integral: (b,) whether no sum of costs is rounded.
        exact_in_float: (b,) whether float would not round them either.
        largest_cost: (b,) the largest |cost| that a permutation can pay: one product, or a linear cost.
        magnitude: (b,) bound on the sum of |costs| that a permutation pays, without penalties.
    """

    valid: Tensor
    sizes: Tensor
    flow: Tensor
    distance: Tensor
    linear: Tensor
    forbidden: Tensor
    symmetric: Tensor
    unit: Tensor
    integral: Tensor
    exact_in_float: Tensor
    largest_cost: Tensor
    magnitude: Tensor

    @property
    def noise(self) -> Tensor:
        """(b,), changes of cost below this are rounding."""
        return (_NOISE * self.magnitude).masked_fill(self.integral, 0.0)


def dense_costs(flow: Tensor, distance: Tensor, linear: Tensor | None, sizes: Tensor | None) -> DenseCosts:
    """Prepares problems with at least one (padded) node."""
    batch, nodes, _ = flow.shape
    flow, distance = flow.double(), distance.double()
    linear = torch.zeros_like(flow) if linear is None else linear.double()
    sizes = torch.full((batch,), nodes, device=flow.device) if sizes is None else sizes.clamp(0, nodes)
    too_large = 2.0**_LARGEST_EXPONENT
    bad = ~(flow.abs() < too_large) | ~(distance.abs() < too_large) | ~((linear.abs() < too_large) | (linear > 0))
    bad |= (linear >= too_large) & (linear < torch.inf)
    valid = ~(bad & _inside(sizes, nodes)).flatten(1).any(1)
    sizes = sizes.masked_fill(~valid, 0)

    padding = ~_inside(sizes, nodes)
    flow, distance, linear = (matrix.masked_fill(padding, 0.0) for matrix in (flow, distance, linear))
    forbidden = linear == torch.inf
    linear = linear.masked_fill(forbidden, 0.0)
    largest_cost = torch.maximum(_largest(flow) * _largest(distance), _largest(linear))
    loops = flow.diagonal(dim1=1, dim2=2)[:, :, None] * distance.diagonal(dim1=1, dim2=2)[:, None, :]
    linear = (linear + loops).masked_fill(forbidden, 0.0)
    loop = torch.eye(nodes, dtype=torch.bool, device=flow.device)
    flow, distance = flow.masked_fill(loop, 0.0), distance.masked_fill(loop, 0.0)

    by_flow, by_distance = (matrix.eq(matrix.mT).flatten(1).all(1) for matrix in (flow, distance))
    symmetric = by_flow | by_distance
    unit, integral, fits_float = _unit(flow, distance, linear)
    distance = torch.where(by_flow[:, None, None], distance + distance.mT, distance)
    flow = torch.where((by_distance & ~by_flow)[:, None, None], flow + flow.mT, flow)

    products = torch.minimum(_largest_line(flow) * _largest(distance), _largest(flow) * _largest_line(distance))
    slope = (2.0 - symmetric.double()) * products + _largest(linear)
    magnitude = slope * sizes
    integral = integral & (magnitude < _DOUBLE_INTEGERS * unit)
    forbids = forbidden.flatten(1).any(1)
    penalty = _power_above(4.0 * magnitude + unit.masked_fill(~integral, 0.0))
    return DenseCosts(
        valid=valid,
        sizes=sizes,
        flow=flow,
        distance=distance,
        linear=torch.where(forbidden, penalty[:, None, None], linear),
        forbidden=forbidden,
        symmetric=symmetric,
        unit=unit,
        integral=integral,
        exact_in_float=integral & fits_float & ~forbids & (8.0 * slope < _FLOAT_INTEGERS * unit),
        largest_cost=largest_cost,
        magnitude=magnitude,
    )


def gilmore_lawler(costs: DenseCosts, threads: int) -> tuple[Tensor, Tensor]:
    """Returns bounds (b,) that no permutation beats, and permutations (b, n) that attain them on the relaxed costs.

    Facility i at location k costs at least linear[i, k] plus the smallest scalar product of row i of the flow and row k
    of the distance. The bound is +inf and the permutation -1 where everything is forbidden.

    Source: P. C. Gilmore, SIAM J. 10 (1962); E. L. Lawler, Management Science 9 (1963).
    """
    nodes = costs.flow.shape[1]
    padding = ~_inside(costs.sizes, nodes)
    no_pair = padding | torch.eye(nodes, dtype=torch.bool, device=costs.flow.device)
    rising = costs.flow.masked_fill(no_pair, torch.inf).sort(dim=2).values
    falling = costs.distance.masked_fill(no_pair, -torch.inf).sort(dim=2, descending=True).values
    # Rows of a problem have equally many entries: those that are left over meet each other.
    rising, falling = (rows.masked_fill(rows.isinf(), 0.0) for rows in (rising, falling))
    weight = (1.0 - 0.5 * costs.symmetric.double())[:, None, None]
    lowest = weight * (rising @ falling.mT) + costs.linear
    paid = rising.abs() @ falling.abs().mT + costs.linear.abs()
    paid = paid.masked_fill(costs.forbidden | padding, 0.0)
    assignment, _, bound, *_ = _ops.linear_assignment(
        lowest.masked_fill(costs.forbidden, torch.inf), costs.sizes[:, None].expand(-1, 2), None, threads
    )
    # A sum of n terms, in any order, is off by less than n units in the last place of the sum of their magnitudes; the
    # products, the linear costs, the weights and this difference are rounded as well.
    rounding = (costs.sizes + 8) * torch.finfo(torch.float64).eps * paid.amax(2).sum(1)
    return torch.where(costs.integral, torch.ceil(bound / costs.unit) * costs.unit, bound - rounding), assignment


def _inside(sizes: Tensor, nodes: int) -> Tensor:
    real = torch.arange(nodes, device=sizes.device) < sizes[:, None]
    return real[:, :, None] & real[:, None, :]


def _largest(matrix: Tensor) -> Tensor:
    return matrix.abs().flatten(1).amax(1)


def _largest_line(matrix: Tensor) -> Tensor:
    """Returns the largest sum of |entries| of a row or a column."""
    return torch.maximum(matrix.abs().sum(1).amax(1), matrix.abs().sum(2).amax(1))


def _biased_exponent(values: Tensor) -> Tensor:
    return values.view(torch.int64) >> 52 & 0x7FF


def _power_of_two(exponent: Tensor) -> Tensor:
    return (exponent + 1023 << 52).view(torch.float64)


def _power_above(values: Tensor) -> Tensor:
    """Returns the lowest power of two above values that are not negative."""
    return (_biased_exponent(values) + 1 << 52).view(torch.float64)


def _exponents(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Returns h and d, (b,) int64: all entries lie below 2^h and are multiples of 2^d.

    In matrices of zeros h is very small and d very large.
    """
    bits = matrix.contiguous().view(torch.int64)
    exponent = _biased_exponent(matrix.contiguous())
    digits = bits & (1 << _DIGITS - 1) - 1 | (exponent > 0).long() << _DIGITS - 1
    exponent = exponent.clamp(min=1) - 1023
    zeros = _biased_exponent((digits & -digits).double()) - 1023  # at the end of the digits
    divisor = exponent - (_DIGITS - 1) + zeros
    none = 10 * _DOUBLE_EXPONENT
    highest = (exponent + 1).masked_fill(matrix == 0, -none).flatten(1).amax(1)
    return highest, divisor.masked_fill(matrix == 0, none).flatten(1).amin(1)


def _unit(flow: Tensor, distance: Tensor, linear: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the largest power of two that divides all costs, whether it does, and whether float has the range."""
    of_flow, of_distance, of_linear = _exponents(flow), _exponents(distance), _exponents(linear)
    highest = torch.maximum(of_flow[0] + of_distance[0], of_linear[0])
    divisor = torch.minimum(of_flow[1] + of_distance[1], of_linear[1])
    # Products with zeros have exponents that are very low above and very high below: they count for nothing.
    any_costs = highest > -_DOUBLE_EXPONENT * 5
    divisor, highest = divisor.masked_fill(~any_costs, 0), highest.masked_fill(~any_costs, 0)
    integral = (highest - divisor < _DIGITS) & (divisor.abs() < _DOUBLE_EXPONENT)
    fits_float = torch.ones_like(integral)
    for top, bottom in (of_flow, of_distance, of_linear):
        is_zero = top < -_DOUBLE_EXPONENT * 5
        fits_float &= is_zero | ((top < _FLOAT_EXPONENT) & (bottom > -_FLOAT_EXPONENT))
    return _power_of_two(divisor.clamp(-_DOUBLE_EXPONENT, _DOUBLE_EXPONENT)), integral, fits_float
