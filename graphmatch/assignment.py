"""Linear assignment in one line, in SciPy's conventions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from graphmatch import _check
from graphmatch.problem import LinearProblem
from graphmatch.result import MatchResult, Status
from graphmatch.solve import solve

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def linear_assignment(costs: Tensor | ArrayLike, maximize: bool = False) -> tuple[Tensor, Tensor] | MatchResult:
    """Solves the linear assignment problem of one matrix as SciPy does, or of a batch of matrices in one native call.

    As many rows as columns allow are matched, min(n1, n2), so that the sum of their costs is least (most with
    `maximize`). Ties: see `LAP`.

    Args:
        costs: (n1, n2) or (b, n1, n2), a tensor or anything NumPy makes an array of; +inf forbids an assignment (-inf
            with `maximize`). Integers and booleans are solved as float64.
        maximize: Look for the largest sum instead of the smallest.

    Returns:
        For a matrix (row_ind, col_ind) as `scipy.optimize.linear_sum_assignment`: two int64 tensors of length
        min(n1, n2) on the device of the costs, row_ind ascending. For a batch a `MatchResult`: unmatched rows are -1,
        a status says where nothing is feasible, and with `maximize` its objectives and bounds are those of the negated
        costs.
        Neither carries a gradient. `MatchingLayer(LAP(), gradient)` is the differentiable form, with any estimator.

    Raises:
        TypeError: If the costs are no real numbers.
        ValueError: If they have other than 2 or 3 axes, are NaN or infinite the wrong way, or if a single matrix has no
            feasible matching.

    Example:
        >>> import torch, graphmatch as gm
        >>> costs = torch.tensor([[4.0, 1.0, 3.0], [2.0, 0.0, 5.0], [3.0, 2.0, 2.0]])
        >>> row_ind, col_ind = gm.linear_assignment(costs)
        >>> col_ind, costs[row_ind, col_ind].sum()
        (tensor([1, 0, 2]), tensor(5.))
        >>> gm.linear_assignment(torch.stack([costs, -costs])).objective
        tensor([  5., -11.], dtype=torch.float64)

        The gradient of a loss on the matching, for the estimators `BlackBox` and `IMLE`:

        >>> for gradient in (gm.BlackBox(step=4.0), gm.IMLE(samples=32, noise_scale=2.0)):
        ...     batch = costs[None].clone().requires_grad_()
        ...     matching = gm.MatchingLayer(gm.LAP(), gradient)(batch)
        ...     gm.hamming_loss(matching, torch.eye(3)).backward()
        ...     print(bool(batch.grad[0, 0, 0] > 0), bool(batch.grad[0, 0, 1] < 0))  # descent makes (0, 0) cheaper
        True True
        True True
    """
    values = _numbers(costs)
    if values.ndim not in (2, 3):
        cure = "Give one matrix or a batch of them."
        raise ValueError(
            _check.message(
                "linear_assignment", "costs", "have shape (n1, n2) or (b, n1, n2)", tuple(values.shape), cure
            )
        )
    if maximize:
        values = -values
    result = solve(LinearProblem(values if values.ndim == 3 else values[None]))
    if values.ndim == 3:
        return result
    if result.status.item() == Status.INFEASIBLE:
        rule = "allow a matching of min(n1, n2) rows"
        received = f"too many {'-inf' if maximize else '+inf'}"
        raise ValueError(_check.message("linear_assignment", "costs", rule, received, "Forbid fewer assignments."))
    assignment = result.assignment[0]
    rows = (assignment >= 0).nonzero()[:, 0]
    return rows, assignment[rows]


def _numbers(costs: Tensor | ArrayLike) -> Tensor:
    """Returns costs as a floating-point tensor."""
    if not isinstance(costs, Tensor):
        array = np.asarray(costs)
        if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            rule = "hold real numbers of at most 64 bits"
            raise TypeError(_check.message("linear_assignment", "costs", rule, array.dtype, "Convert them."))
        # Torch takes neither foreign byte orders, nor negative strides, nor the wider unsigned integers.
        is_float = array.dtype.kind == "f"
        native = array.dtype.newbyteorder("=") if is_float else np.dtype(np.float64)
        costs = torch.from_numpy(np.array(array, dtype=native, order="C"))
    if costs.is_complex():
        rule = "hold real numbers"
        raise TypeError(_check.message("linear_assignment", "costs", rule, costs.dtype, "Take the real part."))
    return costs if costs.is_floating_point() else costs.double()
