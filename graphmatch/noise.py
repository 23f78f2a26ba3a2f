"""Counter-based noise: a pure function of (seed, key, sample, problem, row, column), on any device.

It depends on no generator state, so padding, batch layout and the number of threads or samples do not change it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64, 2^64 / golden ratio
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB

KINDS = ("gumbel", "gaussian", "sum_of_gamma")
COUPLINGS = ("independent", "antithetic", "orthogonal")


@dataclass(frozen=True)
class Noise:
    """What noise a batch of problems gets; its numbers follow from the seeds of each problem.

    Args:
        samples: Draws per problem.
        scale: Factor on the standard noise, in units of the costs.
        kind: One of `KINDS`.
        coupling: One of `COUPLINGS`: how the draws of a problem depend on each other.
        everywhere: Noise on all costs, or on the unary ones only.
        seed: Any int.
    """

    samples: int = 1
    scale: float = 1.0
    kind: str = "gumbel"
    coupling: str = "independent"
    everywhere: bool = False
    seed: int = 0


def _shifted(value: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; the one of int64 tensors copies the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _hash(value: Tensor) -> Tensor:
    """One round of SplitMix64 (G. Steele et al., OOPSLA 2014): int64 to int64, wrapping."""
    value = value + _GOLDEN
    value = (value ^ _shifted(value, 30)) * _MIX_1
    value = (value ^ _shifted(value, 27)) * _MIX_2
    return value ^ _shifted(value, 31)


def draw(
    noise: Noise,
    keys: Tensor,
    instances: Tensor,
    shape: tuple[int, int],
    sizes: Tensor | None,
    stream: int,
    first: int,
    count: int,
) -> Tensor:
    """Returns standard noise (count, b, rows, columns) in float32: samples first, first + 1, ... of each problem.

    Args:
        noise: Kind, coupling and seed; its scale is not applied.
        keys: (b,) int64, for instance the number of the training step.
        instances: (b,) int64, which problem it is.
        shape: (rows, columns) of the padded costs.
        sizes: (b, 2) int64 real rows and columns, or None; the noise is zero outside.
        stream: Which cost tensor of the problems.
        first: First sample.
        count: Number of samples.
    """
    uniform = _hashed_uniform(keys, instances, shape, noise.seed, stream, first, count)
    values = (-torch.log(-torch.log(uniform)) if noise.kind == "gumbel" else torch.special.ndtri(uniform)).float()
    if sizes is None:
        return values
    rows = torch.arange(shape[0], device=keys.device) < sizes[:, 0, None]
    columns = torch.arange(shape[1], device=keys.device) < sizes[:, 1, None]
    return torch.where(rows[:, :, None] & columns[:, None, :], values, 0)


def score(kind: str, values: Tensor) -> Tensor:
    """Returns the derivative of minus the log density of standard noise at `values`."""
    return values if kind == "gaussian" else 1 - torch.exp(-values)


def _hashed_uniform(
    keys: Tensor, instances: Tensor, shape: tuple[int, int], seed: int, stream: int, first: int, count: int
) -> Tensor:
    def counter(size: int, start: int = 0) -> Tensor:
        return torch.arange(start, start + size, device=keys.device)

    state = _hash(_hash(keys + _hash(torch.tensor(seed, device=keys.device))) + counter(count, first)[:, None])
    state = _hash(state + instances)
    if stream:
        state = state ^ _hash(torch.tensor(stream, device=keys.device))
    state = _hash(state[..., None] + counter(shape[0]))
    state = _hash(state[..., None] + counter(shape[1]))
    # 53 random bits, centred between two representable values: never 0 or 1.
    return ((_shifted(state, 11).double() + 0.5) * 2.0**-53).clamp(max=1 - 2.0**-53)


def uniform_noise(samples: int, like: Tensor, seed: int, key: Tensor) -> Tensor:
    """Returns uniform numbers in (0, 1), (samples, b, n1, n2) in the dtype of `like`.

    Args:
        samples: Number of independent draws per problem.
        like: (b, n1, n2) tensor whose shape, dtype and device are taken.
        seed: Any int.
        key: 0-d int64 tensor, for instance the number of the training step.
    """
    batch, rows, columns = like.shape

    def counter(size: int) -> Tensor:
        return torch.arange(size, device=like.device)

    state = _hash(_hash(key.to(like.device) + _hash(torch.tensor(seed, device=like.device))) + counter(samples))
    state = _hash(state[:, None] + counter(batch))
    state = _hash(state[..., None] + counter(rows))
    state = _hash(state[..., None] + counter(columns))
    # 53 random bits, centred between two representable values: never 0 or 1.
    return ((_shifted(state, 11).double() + 0.5) * 2.0**-53).clamp(max=1 - 2.0**-53).to(like.dtype)


def gumbel_noise(samples: int, like: Tensor, seed: int, key: Tensor) -> Tensor:
    """Returns standard Gumbel noise (mean 0.5772, variance 1.6449), shaped as `uniform_noise`."""
    uniform = uniform_noise(samples, like.double(), seed, key)
    return -torch.log(-torch.log(uniform)).to(like.dtype)


def gaussian_noise(samples: int, like: Tensor, seed: int, key: Tensor) -> Tensor:
    """Returns standard normal noise, shaped as `uniform_noise`."""
    uniform = uniform_noise(samples, like.double(), seed, key)
    return torch.special.ndtri(uniform).to(like.dtype)
