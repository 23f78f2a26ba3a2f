"""Adaptive implicit maximum likelihood: a perturbation that adapts to how often solutions change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphmatch import _check
from graphmatch.gradients.base import Oracle, Tensors, Upstream, overflowed
from graphmatch.gradients.imle import IMLE

# Share of the past in the running mean of the changes.
_DECAY = 0.9
# Limits of the step, in units of the noise scale.
_SMALLEST, _LARGEST = 1e-6, 1e6
# What the memory holds: float64 numbers by their bits, so that a change of a module's dtype leaves them alone.
_STEP, _CHANGES, _WEIGHT = range(3)

_library = torch.library.Library("graphmatch", "FRAGMENT")
_library.define(
    "adapt_(Tensor(a!) memory, Tensor changes, float wanted, float rate) -> ()", tags=torch.Tag.pt2_compliant_tag
)


@dataclass(frozen=True, kw_only=True)
class AdaptiveIMLE(IMLE):
    """`IMLE` whose step adapts: lambda = beta * noise_scale / max|g|, with beta as small as gradients allow.

    Small steps have little bias, but leave most gradients at zero; how small is too small depends on the problem and
    changes in training. After each backward pass in training the running mean (0.9 of the past) of the changes per
    problem and sample is compared with `wanted_changes`: below it beta is multiplied by 1 + rate, above divided. The
    changes are the entries of the matching (of the first solution tensor) in which both sides of the difference differ,
    entries whose differences cancel over the samples not counted; problems without upstream gradient do not count.
    Multiplied, so that the same rate suits steps of any size, and beta stays positive; the source adds and subtracts.
    The source's lambda also scales with the norms of the whole batch: here, but for beta, each problem has its own.

    Beta and the mean are the buffer `memory` of `MatchingLayer`: saved with the state dict, copied with the layer. Each
    backward pass of an accumulated gradient adapts. Ranks of DistributedDataParallel adapt on their own problems, and
    start each forward pass from the buffers of rank 0. Bias, variance and solves are those of `IMLE`, and so is the
    evaluation, with the beta reached.

    Args:
        samples: As in `IMLE`, and so are all but the last two.
        step: beta at the beginning.
        noise_scale: Scale of the noise in units of the costs.
        noise: "gumbel", "gaussian" or "sum_of_gamma".
        coupling: "independent", "antithetic" or "orthogonal".
        perturb: "unary" or "all".
        symmetric: Symmetric or one-sided difference.
        target: "lambda" or "sign".
        open_samples: "keep", "drop" or "weigh".
        largest_gap: Of a sample that counts as solved.
        seed: Any int.
        wanted_changes: Changes per problem and sample to aim at. A different complete matching differs from another one
            in 4 entries at least.
        rate: Relative change of beta per backward pass; 0 leaves it as it is.

    Source: P. Minervini et al., "Adaptive perturbation-based gradient estimation for discrete latent variable models",
        AAAI 2023, algorithm 2.

    Example:
        >>> import torch, graphmatch as gm
        >>> layer = gm.MatchingLayer(gm.LAP(), gm.AdaptiveIMLE(step=1e-3, rate=0.1))
        >>> costs = torch.tensor([[[0.0, 9.0], [9.0, 0.0]]], requires_grad=True)  # no small step changes this matching
        >>> layer(costs)[0, 0, 0].backward()
        >>> round(float(layer.gradient.step_of(layer.memory)), 6)
        0.0011
    """

    wanted_changes: float = 1.0
    rate: float = 0.01

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        where = type(self).__name__
        wanted, rate = self.wanted_changes, self.rate
        _check.option(where, "wanted_changes", wanted, 0 < wanted < torch.inf, "be positive", "1.0 is the default.")
        _check.option(where, "rate", rate, 0 <= rate < torch.inf, "be at least 0", "0.01 is the default.")

    def initial_memory(self) -> Tensor:
        """Returns the memory at the beginning, (3,) int64."""
        return torch.tensor([self.step, 0.0, 0.0], dtype=torch.float64).view(torch.int64)

    def step_of(self, memory: Tensor) -> Tensor:
        """Returns the step of a memory in units of the noise scale, 0-d float64."""
        return memory.view(torch.float64)[_STEP]

    def changes_of(self, memory: Tensor) -> Tensor:
        """Returns the running mean of the changes per problem and sample, 0-d float64; NaN at the beginning."""
        numbers = memory.view(torch.float64)
        return numbers[_CHANGES] / numbers[_WEIGHT]

    def backward(
        self, oracle: Oracle, costs: Tensors, solutions: Tensors, saved: Tensors, upstream: Upstream, training: bool
    ) -> Tensors:
        """Returns the mean difference under the noise of the forward pass, and adapts the step of the next one."""
        memory = oracle.memory
        if memory is None:
            rule, cure = "have the memory of this estimator", "Set it to initial_memory()."
            raise TypeError(_check.message(type(self).__name__, "oracle", rule, "None", cure))
        step = self.step_of(memory.clone()).to(costs[0].device)
        gradients, differences = self.differences(oracle, costs, solutions, saved, upstream, training, step)
        if training:
            given = [g.abs().flatten(1).sum(1) > 0 for g in upstream if g is not None]
            counts = torch.stack(given).any(0) & ~overflowed(upstream)
            changes = torch.where(counts, differences[0].abs().flatten(1).sum(1), torch.nan)
            torch.ops.graphmatch.adapt_(memory, changes, self.wanted_changes, self.rate)
        return gradients


@torch.library.impl(_library, "adapt_", "CompositeExplicitAutograd")
def _adapt(memory: Tensor, changes: Tensor, wanted: float, rate: float) -> None:
    """Adapts the step in place; problems with NaN changes do not count."""
    numbers = memory.view(torch.float64)
    mean = changes.double().nanmean().to(memory.device)
    known = ~mean.isnan()
    total = _DECAY * numbers[_CHANGES] + (1 - _DECAY) * mean
    weight = _DECAY * numbers[_WEIGHT] + (1 - _DECAY)
    factor = torch.where(total < wanted * weight, 1 + rate, 1 / (1 + rate))
    step = (numbers[_STEP] * factor).clamp(_SMALLEST, _LARGEST)
    numbers.copy_(torch.where(known, torch.stack([step, total, weight]), numbers))


@torch.library.register_fake("graphmatch::adapt_", lib=_library)
def _adapt_fake(memory: Tensor, changes: Tensor, wanted: float, rate: float) -> None:
    return None


def _adapt_vmap(info: Any, dims: Any, memory: Tensor, changes: Tensor, wanted: float, rate: float) -> tuple[None, None]:
    if dims[0] is not None:
        rule = "be shared by all calls of a vmap"
        raise ValueError(_check.message("AdaptiveIMLE", "memory", rule, "one of each", "Use one layer for all."))
    torch.ops.graphmatch.adapt_(memory, changes, wanted, rate)  # all calls count as one batch
    return None, None


torch.library.register_vmap("graphmatch::adapt_", _adapt_vmap, lib=_library)
