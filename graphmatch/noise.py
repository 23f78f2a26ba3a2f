"""Counter-based noise: a pure function of (seed, key, sample, problem, row, column), on any device.

It depends on no generator state, so padding, batch layout and the number of threads or samples do not change it. Every
number is computed in float64 and rounded to float32, whatever the dtype of the costs. A GPU draws the same bits as the
CPU, but for sums of Gamma numbers, which may differ in the last one. Orthogonal samples are always drawn on the CPU and
copied, and so is all noise where graphmatch was built without its CUDA module: the copy makes the host wait.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from graphmatch import _device, _reference, _sampling_ops

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

    It is drawn where the counters are if it can be, see above.

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
    kind, coupling = KINDS.index(noise.kind), COUPLINGS.index(noise.coupling)
    options = (noise.seed, stream, kind, coupling)
    if _drawn_there(keys, noise.coupling):
        return _sampling_ops.noise(keys, instances, count, first, *shape, sizes, *options)
    host = None if sizes is None else sizes.cpu()
    drawn = _sampling_ops.noise(keys.cpu(), instances.cpu(), count, first, *shape, host, *options)
    return drawn.to(keys.device)


def _drawn_there(keys: Tensor, coupling: str) -> bool:
    return _device.resident(keys) and _device.has_kernels() and coupling != "orthogonal"


def score(kind: str, values: Tensor) -> Tensor:
    """Returns the derivative of minus the log density of standard noise at `values`."""
    return values if kind == "gaussian" else 1 - torch.exp(-values)


def uniform_noise(samples: int, like: Tensor, seed: int, key: Tensor) -> Tensor:
    """Returns uniform numbers in (0, 1), (samples, b, n1, n2) in the dtype of `like`.

    Args:
        samples: Number of independent draws per problem.
        like: (b, n1, n2) tensor whose shape, dtype and device are taken.
        seed: Any int.
        key: 0-d int64 tensor, for instance the number of the training step.
    """
    return _noise(_sampling_ops.UNIFORM, _reference.uniform_noise, samples, like, seed, key)


def gumbel_noise(samples: int, like: Tensor, seed: int, key: Tensor) -> Tensor:
    """Returns standard Gumbel noise (mean 0.5772, variance 1.6449), shaped as `uniform_noise`."""
    return _noise(_sampling_ops.GUMBEL, _reference.gumbel_noise, samples, like, seed, key)


def gaussian_noise(samples: int, like: Tensor, seed: int, key: Tensor) -> Tensor:
    """Returns standard normal noise, shaped as `uniform_noise`."""
    return _noise(_sampling_ops.GAUSSIAN, _reference.gaussian_noise, samples, like, seed, key)


def _noise(
    kind: int, twin: Callable[[int, Tensor, int, Tensor], Tensor], samples: int, like: Tensor, seed: int, key: Tensor
) -> Tensor:
    """Returns noise by the native operator, where there is none for the device by its twin."""
    native = like.device.type == "cpu" or _drawn_there(like, "independent")
    if not native:
        return twin(samples, like, seed, key)
    batch, rows, columns = like.shape
    keys, instances = key.to(like.device).expand(batch), torch.arange(batch, device=like.device)
    independent = _sampling_ops.INDEPENDENT
    drawn = _sampling_ops.noise(keys, instances, samples, 0, rows, columns, None, seed, 0, kind, independent)
    return drawn.to(like.dtype)
