"""The noise of the estimators: its distribution, and that it depends on nothing but its counters."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats

from graphmatch import _reference
from graphmatch.noise import gaussian_noise, gumbel_noise, uniform_noise

NOISE = {"uniform": uniform_noise, "gumbel": gumbel_noise, "gaussian": gaussian_noise}
DISTRIBUTIONS = {"uniform": "uniform", "gumbel": "gumbel_r", "gaussian": "norm"}
every_noise = pytest.mark.parametrize("name", NOISE)


def draw(name: str, shape: tuple[int, int, int, int], seed: int = 0, key: int = 0) -> torch.Tensor:
    """Noise (samples, b, n1, n2) in float64."""
    samples, *rest = shape
    return NOISE[name](samples, torch.empty(rest, dtype=torch.float64), seed, torch.tensor(key))


@every_noise
@pytest.mark.parametrize("shape", [(64, 4, 10, 20), (1, 1, 200, 250), (50_000, 1, 1, 1), (1, 50_000, 1, 1)], ids=str)
def test_distribution(name: str, shape: tuple[int, int, int, int]):
    values = draw(name, shape).flatten().numpy()
    # Seeds are fixed: what passes once passes always.
    assert stats.kstest(values, DISTRIBUTIONS[name]).pvalue > 1e-3


def test_moments():
    gumbel, gaussian = draw("gumbel", (100, 10, 20, 20)), draw("gaussian", (100, 10, 20, 20))
    count = gumbel.numel()
    assert gumbel.mean().item() == pytest.approx(0.5772157, abs=5 * 1.2825 / math.sqrt(count))
    assert gumbel.var().item() == pytest.approx(math.pi**2 / 6, rel=0.02)
    assert gaussian.mean().item() == pytest.approx(0.0, abs=5 / math.sqrt(count))
    assert gaussian.var().item() == pytest.approx(1.0, rel=0.02)


@every_noise
def test_no_correlation_between_neighbours(name: str):
    values = draw(name, (40, 40, 40, 40))
    values = (values - values.mean()) / values.std()
    limit = 5 / math.sqrt(values.numel())
    for axis in range(4):
        assert abs((values * values.roll(1, axis)).mean().item()) < limit
    for other in (draw(name, (40, 40, 40, 40), key=1), draw(name, (40, 40, 40, 40), seed=1)):
        assert abs((values * other).mean().item()) < limit


@every_noise
def test_numbers_hardly_repeat(name: str):
    values = torch.stack([draw(name, (8, 8, 8, 8), seed, key) for seed in (0, 1, -1, 2**62) for key in (0, 1, 5000)])
    # float32 has at least 2^23 numbers for them: of 49152 draws some 144 pairs are equal at most.
    assert values.unique().numel() > values.numel() - 250
    assert values.isfinite().all()


@every_noise
def test_a_number_depends_on_its_counters_alone(name: str):
    large = draw(name, (6, 5, 7, 9), seed=3, key=4)
    assert torch.equal(draw(name, (6, 5, 7, 9), seed=3, key=4), large)
    assert torch.equal(draw(name, (2, 3, 4, 5), seed=3, key=4), large[:2, :3, :4, :5])
    torch.manual_seed(12345)
    assert torch.equal(draw(name, (6, 5, 7, 9), seed=3, key=4), large)


def test_uniform_noise_is_never_zero_or_one():
    values = draw("uniform", (1000, 10, 10, 10))
    assert 0 < values.min() < 1e-5
    assert 1 - 1e-5 < values.max() < 1


@every_noise
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_type_and_shape_follow_the_costs(name: str, dtype: torch.dtype):
    function: Callable = NOISE[name]
    for shape in [(2, 3, 4), (0, 3, 4), (2, 0, 4), (2, 3, 0)]:
        values = function(5, torch.empty(shape, dtype=dtype), 0, torch.tensor(0))
        assert values.shape == (5, *shape)
        assert values.dtype == dtype
    narrow, wide = (function(5, torch.empty(2, 3, 4, dtype=t), 0, torch.tensor(0)) for t in (dtype, torch.float64))
    assert torch.equal(narrow, wide.to(dtype))


@every_noise
@pytest.mark.parametrize("seed", [0, -3, 2**62])
def test_numbers_are_those_of_the_slow_twin(name: str, seed: int):
    like, key = torch.empty(5, 30, 70, dtype=torch.float64), torch.tensor(-12)
    fast, slow = (module(20, like, seed, key) for module in (NOISE[name], getattr(_reference, f"{name}_noise")))
    different = fast != slow
    assert different.double().mean().item() < 1e-6
    # Neighbours in float32, where they differ at all.
    steps = torch.tensor([-torch.inf, torch.inf]).view(2, 1, 1, 1, 1)
    neighbours = torch.nextafter(slow.float(), steps).double()
    assert (fast == neighbours).any(0)[different].all()


def test_twin_on_another_device_has_the_same_shape():
    like = torch.empty(2, 3, 4, device="meta")
    assert gumbel_noise(5, like, 0, torch.tensor(0)).device.type == "meta"
