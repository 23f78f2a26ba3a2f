"""Noise drawn on a GPU has the CPU's bits."""

from __future__ import annotations

import pytest
import torch

from graphmatch import _sampling_ops, noise
from graphmatch._sampling_ops import ANTITHETIC, GAUSSIAN, GUMBEL, INDEPENDENT, SUM_OF_GAMMA, UNIFORM

pytestmark = pytest.mark.cuda

SIZES = torch.tensor([[17, 19], [3, 19], [0, 4], [16, 1]])


def drawn(device: str, kind: int, coupling: int, padded: bool, samples: int) -> torch.Tensor:
    keys, instances = torch.tensor([3, 3, 2**62, -5]), torch.tensor([0, 1, 7, -1])
    sizes = SIZES.to(device) if padded else None
    counters = keys.to(device), instances.to(device)
    return _sampling_ops.noise(*counters, samples, 5, 17, 19, sizes, -3, 1, kind, coupling)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("coupling", [INDEPENDENT, ANTITHETIC])
@pytest.mark.parametrize("kind", [GUMBEL, GAUSSIAN, UNIFORM])
def test_bits_are_the_same(kind: int, coupling: int, padded: bool):
    found = drawn("cuda", kind, coupling, padded, 1000)
    assert torch.equal(found.cpu(), drawn("cpu", kind, coupling, padded, 1000))


def test_sums_of_gamma_agree_to_the_last_bit():
    found, expected = (drawn(device, SUM_OF_GAMMA, INDEPENDENT, True, 20) for device in ("cuda", "cpu"))
    torch.testing.assert_close(found.cpu(), expected, rtol=2e-7, atol=1e-9)


@pytest.mark.parametrize("coupling", noise.COUPLINGS)
def test_every_coupling_is_drawn_and_only_orthogonal_samples_are_copied(coupling: str):
    def values(device: str) -> torch.Tensor:
        keys, instances = torch.full((3,), 4, device=device), torch.arange(3, device=device)
        call = noise.Noise(samples=6, kind="gaussian", coupling=coupling)
        return noise.draw(call, keys, instances, (4, 5), None, 0, 0, 6)

    torch.cuda.set_sync_debug_mode("default" if coupling == "orthogonal" else "error")
    try:
        found = values("cuda")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert found.device.type == "cuda"
    assert torch.equal(found.cpu(), values("cpu"))


@pytest.mark.parametrize("function", [noise.uniform_noise, noise.gumbel_noise, noise.gaussian_noise])
def test_noise_of_a_shape_is_drawn_where_it_is_wanted(function: object):
    like = torch.zeros(2, 3, 4)
    found, expected = (function(5, each, 1, torch.tensor(9)) for each in (like.cuda(), like))  # type: ignore[operator]
    assert found.device.type == "cuda"
    assert torch.equal(found.cpu(), expected)


def test_empty_noise_is_no_launch():
    assert _sampling_ops.noise(*torch.zeros(2, 0, dtype=torch.int64).cuda(), 3, 0, 4, 4, None, 0, 0, 0, 0).numel() == 0
