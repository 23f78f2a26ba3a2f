"""A solver of your own as an oracle."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from graphmatch.gradients.base import Oracle, Reliability, Sampled, Solved, Tensors, Upstream, moved
from graphmatch.gradients.sampling import Answers, Draw, sample_means, weighted_scores
from graphmatch.noise import Noise, draw


class FunctionOracle(Oracle):
    """Differentiates through any function that minimises a linear objective over 0/1 vectors.

    Args:
        function: Takes a tuple of cost tensors (m * b, ...) and returns the tuple of its 0/1 solutions, shaped as they:
            those of m variants of the same b problems, variant after variant. It need not be differentiable.
        key: 0-d int64 on the device of the costs, different for each call: seeds the noise; None = zero.
        memory: `initial_memory()` of an estimator that adapts itself, the same for all calls; changed in place.
        instances: (b,) int64, what the noise of each problem follows from; None = its place in the batch.

    Example:
        >>> import torch, graphmatch as gm
        >>> def cheapest(costs):  # one of n: the argmin as a 0/1 vector
        ...     return (torch.nn.functional.one_hot(costs[0].argmin(1), costs[0].shape[1]).to(costs[0].dtype),)
        >>> costs = torch.tensor([[0.0, 0.1, 0.2]], requires_grad=True)
        >>> (choice,), _ = gm.gradients.estimated_solution(
        ...     gm.BlackBox(step=1.0), gm.gradients.FunctionOracle(cheapest), (costs,), training=True)
        >>> (choice * torch.tensor([1.0, 0.0, 0.5])).sum().backward()
        >>> costs.grad  # descent makes the first dearer, the second cheaper
        tensor([[-1.,  1.,  0.]])
    """

    def __init__(
        self,
        function: Callable[[Tensors], Tensors],
        key: Tensor | None = None,
        memory: Tensor | None = None,
        instances: Tensor | None = None,
    ) -> None:
        self.function = function
        self.memory = memory
        self._key = key
        self._instances = instances
        self.tensors = (self._key, instances)

    def with_tensors(self, tensors: Upstream) -> FunctionOracle:
        """Returns the same oracle with another key and other instances."""
        return FunctionOracle(self.function, tensors[0], self.memory, tensors[1])

    def solve(self, costs: Tensors, steps: Upstream | None = None, state: Tensors = ()) -> Solved:
        """Returns the solutions for costs + steps."""
        return Solved(self._call(costs if steps is None else moved(costs, steps)).solutions)

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
        """Returns the means over the samples; such solvers have no certificates, so all samples count alike."""
        draws = self._draw(costs, noise)
        means, kept, certificates = sample_means(self._call, draws, costs, noise, steps, signs, keep, Reliability())
        by_variant = tuple(tuple(each[variant] for each in means) for variant in range(len(signs)))
        return Sampled(by_variant, tuple(each[0] for each in kept), certificates=certificates)

    def products(self, costs: Tensors, kept: Tensors, upstream: Upstream) -> Tensor:
        """Returns <upstream, y> of each kept solution, (S, b)."""
        pairs = zip(kept, upstream, strict=True)
        return torch.stack([(y * g).flatten(2).sum(2) for y, g in pairs if g is not None]).sum(0)

    def solutions_of(self, costs: Tensors, kept: Tensors, sample: int) -> Tensors:
        """Returns the kept solutions of one sample."""
        return tuple(each[sample] for each in kept)

    def scores(self, costs: Tensors, noise: Noise, weights: Tensor) -> Upstream:
        """Returns sum_k weights[k] nu'(Z_k) for each cost tensor."""
        return weighted_scores(self._draw(costs, noise), costs, noise, weights)

    def _call(self, costs: Tensors) -> Answers:
        solutions = tuple(self.function(tuple(cost.detach() for cost in costs)))
        objective = self.objective(costs, solutions).double()
        return Answers(solutions, solutions, (objective, objective))

    def _draw(self, costs: Tensors, noise: Noise) -> Draw:
        batch = costs[0].shape[0]
        device = costs[0].device
        keys = torch.zeros((), dtype=torch.int64, device=device) if self._key is None else self._key.to(device)
        keys = keys.expand(batch)
        instances = torch.arange(batch, device=device) if self._instances is None else self._instances

        def standard(place: int, first: int, count: int) -> Tensor:
            shape = costs[place].shape[1:]
            flat = (shape[0], shape[1:].numel())
            values = draw(noise, keys, instances, flat, None, place, first, count)
            return values.reshape(count, batch, *shape)

        return standard
