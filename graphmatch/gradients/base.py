"""What a gradient estimator is, what it asks of a solver, and how the two become a differentiable function.

Every matching problem is linear in its costs: solution(c) = argmin_y <c, y> over the 0/1 vectors y of valid matchings,
where c collects all cost tensors of a problem (unary and quadratic) and y the entries that are paid. An estimator needs
no more than that oracle. (Dense problems are bilinear in flow and distance; there y stands for the derivative of the
objective with respect to each cost tensor, and the formulas stay the same.)

All estimators here are homogeneous: perturbations have a fixed size in cost units, so that lambda = size / max|g| of
each problem, and grad(s L) = s grad(L) for every s > 0: loss weights, gradient accumulation and loss scaling of mixed
precision act as they should.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from graphmatch.noise import Noise

Tensors = tuple[Tensor, ...]
# Tensors of a call, or gradients of a loss with respect to solutions: None where there is none.
Upstream = tuple[Tensor | None, ...]


class Solved(NamedTuple):
    """The solutions of a batch without noise.

    Attributes:
        solutions: One 0/1 tensor per cost tensor, shaped as it.
        state: What a later call may start from, or nothing.
        report: What the oracle has to say about its answers, or nothing; `Oracle.report_size` tensors.
        objective: (b,), not finite where there is no solution; None where all problems have one.
    """

    solutions: Tensors
    state: Tensors = ()
    report: Tensors = ()
    objective: Tensor | None = None


class Sampled(NamedTuple):
    """The solutions of S noisy copies of a batch, in V variants.

    Attributes:
        means: For each variant, the mean solutions over the samples, shaped as the costs.
        kept: The solutions one by one, in the oracle's own form: see `Oracle.products`. Empty unless asked for.
        state: What a later call may start from, or nothing.
        report: As in `Solved`.
        certificates: Objective and lower bound of each noisy problem, (V, S, b) each.
    """

    means: tuple[Tensors, ...]
    kept: Tensors = ()
    state: Tensors = ()
    report: Tensors = ()
    certificates: Tensors = ()


class Forward(NamedTuple):
    """What the forward pass of an estimator returns.

    Attributes:
        solutions: Shown to the model, one tensor per cost tensor.
        saved: What its backward pass needs.
        report: Of the oracle.
    """

    solutions: Tensors
    saved: Tensors = ()
    report: Tensors = ()


class Reliability(NamedTuple):
    """What becomes of samples whose optimum is not certified.

    Attributes:
        open_gap: Relative gap above which a sample counts as open; None = all count alike.
        weigh: Whether open samples have weight open_gap / gap instead of 0.
    """

    open_gap: float | None = None
    weigh: bool = False


class Oracle(ABC):
    """argmin_y <c, y> for a batch of b problems, as estimators call it.

    Attributes:
        tensors: Everything that comes as a tensor beside the costs (edges, sizes, seeds of each problem); None where
            there is none. They reach the methods by way of `with_tensors`, so that transforms of functions see them.
        memory: State of the estimator that outlives a call, or None.
    """

    report_size = 0
    tensors: Upstream = ()
    memory: Tensor | None = None

    @abstractmethod
    def with_tensors(self, tensors: Upstream) -> Oracle:
        """Returns the same oracle with other tensors."""

    @abstractmethod
    def solve(self, costs: Tensors, steps: Upstream | None = None, state: Tensors = ()) -> Solved:
        """Returns the solutions for costs + steps, starting from the state of an earlier call."""

    @abstractmethod
    def sample(
        self,
        costs: Tensors,
        noise: Noise,
        steps: Upstream | None = None,
        signs: tuple[float, ...] = (0.0,),
        state: Tensors = (),
        keep: bool = False,
        reliability: Reliability | None = None,
    ) -> Sampled:
        """Returns, for each sign, the mean over the samples e of the solutions for costs - e + sign * steps."""

    @abstractmethod
    def products(self, costs: Tensors, kept: Tensors, upstream: Upstream) -> Tensor:
        """Returns <upstream, y> of each kept solution y, (S, b)."""

    @abstractmethod
    def solutions_of(self, costs: Tensors, kept: Tensors, sample: int) -> Tensors:
        """Returns the kept solutions of one sample, shaped as the costs."""

    @abstractmethod
    def scores(self, costs: Tensors, noise: Noise, weights: Tensor) -> Upstream:
        """Returns sum_k weights[k] nu'(Z_k) for each cost tensor, None where it has no noise.

        Z_k is the standard noise of sample k (e = scale Z), nu the negative logarithm of its density.

        Args:
            costs: As in `sample`.
            noise: As in `sample`.
            weights: (S, b).
        """

    def objective(self, costs: Tensors, solutions: Tensors) -> Tensor:
        """Returns <c, y> of 0/1 solutions (b, ...), (b,)."""
        pairs = zip(costs, solutions, strict=True)
        return torch.stack([torch.where(y != 0, c * y, 0).flatten(1).sum(1) for c, y in pairs]).sum(0)

    def relaxed_gradients(self, costs: Tensors, solutions: Tensors, upstream: Upstream, temperature: float) -> Tensors:
        """Returns the gradients in the costs through a smooth relaxation of the solutions, where there is one."""
        raise TypeError(
            f"{type(self).__name__}: the problem must have a relaxation; got one that only knows its solutions. "
            "Use an estimator other than StraightThroughSinkhorn."
        )

    def balanced(self, costs: Tensors, gradients: Upstream) -> Upstream:
        """Returns gradients without the components that the gradient of any function of the solutions lacks."""
        return gradients

    def centred(self, costs: Tensors, gradients: Upstream) -> Upstream:
        """Returns gradients without the directions in the costs that no solution depends on, as far as known."""
        return gradients


class GradientEstimator(Protocol):
    """How to differentiate through an oracle."""

    def forward(self, oracle: Oracle, costs: Tensors, training: bool) -> Forward:
        """Returns the solutions shown to the model and what `backward` needs beside them.

        Args:
            oracle: The solver.
            costs: (b, ...) float32 or float64 tensors.
            training: Whether noise is wanted.
        """
        ...

    def backward(
        self, oracle: Oracle, costs: Tensors, solutions: Tensors, saved: Tensors, upstream: Upstream, training: bool
    ) -> Upstream:
        """Returns the gradients of the loss with respect to the costs, given those with respect to the solutions.

        `upstream` holds None for solutions that the loss does not depend on; one at least is a tensor. The result holds
        None for costs without a gradient.
        """
        ...


class _EstimatedSolution(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        estimator: GradientEstimator, oracle: Oracle, training: bool, count: int, *tensors: Tensor | None
    ) -> Tensors:
        costs: Any = tensors[:count]
        answer = estimator.forward(oracle.with_tensors(tensors[count:]), costs, training)
        return (*answer.solutions, *answer.saved, *answer.report)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
        estimator, oracle, training, count, *tensors = inputs
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[count:])
        ctx.estimator, ctx.oracle, ctx.training, ctx.count = estimator, oracle, training, count
        ctx.input_count = len(tensors)
        ctx.save_for_backward(*tensors, *output)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        count, inputs = ctx.count, ctx.input_count
        nothing = (None,) * inputs
        if all(gradient is None for gradient in upstream[:count]):
            return (None, None, None, None, *nothing)
        tensors = ctx.saved_tensors
        costs, context, output = tensors[:count], tensors[count:inputs], tensors[inputs:]
        saved = output[count : len(output) - ctx.oracle.report_size]
        gradients = ctx.estimator.backward(
            ctx.oracle.with_tensors(context), costs, output[:count], saved, upstream[:count], ctx.training
        )
        return (None, None, None, None, *gradients, *nothing[count:])


def estimated_solution(
    estimator: GradientEstimator, oracle: Oracle, costs: Tensors, training: bool
) -> tuple[Tensors, Tensors]:
    """Returns the oracle's solutions for these costs, differentiable by the estimator, and the oracle's report.

    Works under torch.func transforms and torch.compile.

    Args:
        estimator: Any gradient estimator.
        oracle: Any solver.
        costs: (b, ...) float32 or float64 tensors.
        training: Whether the estimator may perturb the forward solutions.
    """
    outputs = _EstimatedSolution.apply(estimator, oracle, training, len(costs), *_distinct(*costs, *oracle.tensors))
    return outputs[: len(costs)], outputs[len(outputs) - oracle.report_size :]


def _distinct(*tensors: Tensor | None) -> Upstream:
    """Returns tensors of which no two are the same object, which torch.compile would refuse."""
    return tuple(
        tensor.view_as(tensor) if tensor is not None and any(tensor is each for each in tensors[:place]) else tensor
        for place, tensor in enumerate(tensors)
    )


def perturbation(upstream: Upstream, size: float | Tensor) -> tuple[Upstream, Tensor]:
    """Returns lambda * upstream with lambda = size / max|upstream| per problem, and 1 / lambda.

    Problems without upstream gradient are left alone and get 1 / lambda = 0. Those whose upstream gradient is not
    finite (an overflow of scaled half precision) are left alone as well; their 1 / lambda is not finite either, so that
    the overflow stays visible to the loss scaler.

    Args:
        upstream: (b, ...) tensors, at least one of them not None.
        size: Largest change of a cost: a number, or a (b,) or 0-d tensor.

    Returns:
        Tensors shaped as upstream with entries in [-size, size] (None stays), and (b,) inverse lambdas.
    """
    given = [gradient for gradient in upstream if gradient is not None]
    batch = given[0].shape[0]
    peaks = [torch.linalg.vector_norm(each.flatten(1), torch.inf, dim=1) for each in given if each.numel() > 0]
    peak = torch.stack(peaks).amax(0) if len(peaks) > 1 else peaks[0] if peaks else given[0].new_zeros(batch)
    sizes = size.to(peak.dtype).expand(batch) if isinstance(size, Tensor) else size

    def scaled(gradient: Tensor | None) -> Tensor | None:
        if gradient is None:
            return None
        # 0 / 0 and what is not finite.
        unit = torch.nan_to_num(gradient / along(peak, gradient), 0.0, 0.0, 0.0)
        return unit * (along(sizes, gradient) if isinstance(sizes, Tensor) else sizes)

    return tuple(scaled(gradient) for gradient in upstream), peak / sizes


def overflowed(upstream: Upstream) -> Tensor:
    """Returns (b,) bool: whether some upstream gradient of a problem is not finite."""
    given = [torch.isfinite(gradient).flatten(1).all(1) for gradient in upstream if gradient is not None]
    return ~torch.stack(given).all(0)


def moved(costs: Sequence[Tensor], steps: Sequence[Tensor | None]) -> Tensors:
    """Returns costs + steps; costs without a step are handed on as they are."""
    return tuple(cost if step is None else cost + step for cost, step in zip(costs, steps, strict=True))


def along(values: Tensor, like: Tensor) -> Tensor:
    """Returns values (b,) shaped to multiply tensors (b, ...)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def weighted(difference: Tensor, weight: Tensor) -> Tensor:
    """Returns difference (b, ...) times weight (b,)."""
    return difference * along(weight, difference)


def checked_choice(where: str, name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuses a value that is none of the choices."""
    if value not in choices:
        raise ValueError(f"{where}: {name} must be one of {list(choices)}; got {value!r}. Pick one.")
