"""The native noise: every kind and coupling has its distribution, and depends on nothing but its counters."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from graphmatch import _sampling_ops
from graphmatch._sampling_ops import ANTITHETIC, GAUSSIAN, GUMBEL, INDEPENDENT, ORTHOGONAL, SUM_OF_GAMMA, UNIFORM

DISTRIBUTIONS = {GUMBEL: "gumbel_r", GAUSSIAN: "norm", UNIFORM: "uniform"}
COUPLINGS = (INDEPENDENT, ANTITHETIC, ORTHOGONAL)
COUPLED = [(kind, coupling) for kind in DISTRIBUTIONS for coupling in COUPLINGS]
EVERY = [*COUPLED, (SUM_OF_GAMMA, INDEPENDENT)]
every_kind = pytest.mark.parametrize(("kind", "coupling"), EVERY)
GUMBEL_MEAN, GUMBEL_VARIANCE = 0.5772156649015329, math.pi**2 / 6


def noise(
    kind: int,
    coupling: int = INDEPENDENT,
    *,
    batch: int = 1,
    samples: int = 1,
    first: int = 0,
    rows: int = 4,
    columns: int = 4,
    sizes: Tensor | None = None,
    key: int = 3,
    start: int = 0,
    seed: int = 1,
    stream: int = 0,
) -> Tensor:
    """Noise (samples, batch, rows, columns) of the instances from `start` on."""
    keys, instances = torch.full((batch,), key), torch.arange(start, start + batch)
    return _sampling_ops.noise(keys, instances, samples, first, rows, columns, sizes, seed, stream, kind, coupling)


@pytest.mark.parametrize(("kind", "coupling"), COUPLED)
@pytest.mark.parametrize("sample", [0, 1, 6])
def test_each_sample_has_the_distribution(kind: int, coupling: int, sample: int):
    # One sample of many instances: members of a group depend on each other.
    values = noise(kind, coupling, batch=4000, first=sample, rows=3, columns=4).flatten().double().numpy()
    assert stats.kstest(values, DISTRIBUTIONS[kind]).pvalue > 1e-3
    expected = getattr(stats, DISTRIBUTIONS[kind])
    assert values.mean() == pytest.approx(expected.mean(), abs=5 * expected.std() / math.sqrt(values.size))
    assert values.var() == pytest.approx(expected.var(), rel=0.05)


@pytest.mark.parametrize(("kind", "coupling"), COUPLED)
def test_entries_of_a_sample_are_uncorrelated(kind: int, coupling: int):
    values = noise(kind, coupling, batch=20_000, first=3, rows=2, columns=3).flatten(2)[0].double()
    correlation = torch.corrcoef(values.T) - torch.eye(6)
    assert correlation.abs().max().item() < 5 / math.sqrt(20_000)


def test_antithetic_samples_mirror_each_other():
    gaussian, uniform, gumbel = (
        noise(kind, ANTITHETIC, batch=3, samples=10, rows=7, columns=9).double() for kind in (GAUSSIAN, UNIFORM, GUMBEL)
    )
    assert gaussian.sum(0).eq(0).all()
    torch.testing.assert_close(uniform[::2] + uniform[1::2], torch.ones(5, 3, 7, 9).double(), rtol=0, atol=1e-7)
    probability = torch.exp(-torch.exp(-gumbel))
    torch.testing.assert_close(probability[::2] + probability[1::2], torch.ones(5, 3, 7, 9).double(), rtol=0, atol=1e-6)
    for kind, values in ((GAUSSIAN, gaussian), (UNIFORM, uniform), (GUMBEL, gumbel)):
        independent = noise(kind, batch=3, samples=10, rows=7, columns=9).double()
        assert torch.equal(values[::2], independent[::2])


@pytest.mark.parametrize(("rows", "columns", "group"), [(8, 9, 32), (2, 3, 4), (1, 1, 1), (4, 8, 32), (5, 5, 16)])
def test_orthogonal_samples_are_orthogonal_within_groups(rows: int, columns: int, group: int):
    shape = {"batch": 4, "samples": 70, "rows": rows, "columns": columns}
    values = noise(GAUSSIAN, ORTHOGONAL, **shape).double().flatten(2)  # (samples, batch, entries)
    lengths = noise(GAUSSIAN, **shape).double().flatten(2).norm(dim=2)
    torch.testing.assert_close(values.norm(dim=2), lengths, rtol=1e-6, atol=0)
    directions = values / lengths[..., None]
    products = torch.einsum("sbn,tbn->bst", directions, directions)
    together = torch.arange(70)[:, None] // group == torch.arange(70) // group
    others = together & ~torch.eye(70, dtype=torch.bool)
    assert products[:, others].abs().sum().item() < 1e-6 * max(int(others.sum()), 1)
    assert torch.equal(values[::group], noise(GAUSSIAN, **shape).double().flatten(2)[::group])
    if rows * columns > 1:
        assert products[:, ~together].abs().mean() > 0.01, "groups are independent"


@pytest.mark.parametrize("kind", [GUMBEL, UNIFORM])
def test_orthogonal_noise_of_other_kinds_is_that_of_the_normal_numbers(kind: int):
    shape = {"batch": 2, "samples": 9, "rows": 3, "columns": 5}
    uniform = stats.norm.cdf(noise(GAUSSIAN, ORTHOGONAL, **shape).double().numpy())
    expected = torch.from_numpy(getattr(stats, DISTRIBUTIONS[kind]).ppf(uniform)).float()
    torch.testing.assert_close(noise(kind, ORTHOGONAL, **shape), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("nodes", [1, 2, 4, 7])
def test_sums_of_gamma_noise_are_gumbel_numbers(nodes: int):
    values = noise(SUM_OF_GAMMA, batch=20_000 // nodes, samples=2, rows=nodes, columns=nodes).double()
    cyclic = (torch.arange(nodes)[:, None] + torch.arange(nodes)) % nodes
    # The n disjoint matchings i -> i + shift of each problem.
    sums = torch.stack([values[..., torch.arange(nodes), cyclic[shift]].sum(-1) for shift in range(nodes)]).flatten()
    assert stats.kstest(sums.numpy(), "gumbel_r").pvalue > 1e-3
    assert sums.mean().item() == pytest.approx(GUMBEL_MEAN, abs=5 * math.sqrt(GUMBEL_VARIANCE / sums.numel()))
    assert sums.var().item() == pytest.approx(GUMBEL_VARIANCE, rel=0.05)


def test_sums_of_gamma_count_the_real_rows_and_columns():
    values = noise(SUM_OF_GAMMA, batch=5000, rows=3, columns=6)
    assert values.mean().item() == pytest.approx(GUMBEL_MEAN / 3, abs=5 * math.sqrt(GUMBEL_VARIANCE / 3 / 90_000))
    assert values.var().item() == pytest.approx(GUMBEL_VARIANCE / 3, rel=0.05)
    padded = noise(SUM_OF_GAMMA, batch=5000, rows=4, columns=7, sizes=torch.tensor([[3, 6]]).repeat(5000, 1))
    assert torch.equal(padded[..., :3, :6], values)


@pytest.mark.parametrize("coupling", [ANTITHETIC, ORTHOGONAL])
def test_sums_of_gamma_are_independent_only(coupling: int):
    with pytest.raises(ValueError, match="sum-of-Gamma noise must be independent"):
        noise(SUM_OF_GAMMA, coupling)


@every_kind
def test_numbers_depend_on_their_counters_alone(kind: int, coupling: int):
    whole = noise(kind, coupling, batch=4, samples=70, rows=3, columns=5)
    assert torch.equal(noise(kind, coupling, batch=4, samples=70, rows=3, columns=5), whole)
    for first, count in ((0, 1), (1, 3), (13, 2), (40, 30), (69, 1)):
        part = noise(kind, coupling, batch=4, samples=count, first=first, rows=3, columns=5)
        assert torch.equal(part, whole[first : first + count])
    assert torch.equal(noise(kind, coupling, batch=2, start=2, samples=70, rows=3, columns=5), whole[:, 2:])
    for change in ({"key": 4}, {"seed": 2}, {"stream": 1}, {"start": 4}):
        other = noise(kind, coupling, **{"batch": 4, "samples": 70, "rows": 3, "columns": 5, **change})
        assert (other == whole).double().mean().item() < 0.01
    if coupling != ORTHOGONAL and kind != SUM_OF_GAMMA:
        larger = noise(kind, coupling, batch=4, samples=70, rows=6, columns=8)
        assert torch.equal(larger[..., :3, :5], whole)


@every_kind
def test_padding_has_no_noise(kind: int, coupling: int):
    sizes = torch.tensor([[3, 5], [0, 4], [2, 0], [4, 6], [1, 1]])
    values = noise(kind, coupling, batch=5, samples=40, rows=4, columns=6, sizes=sizes)
    for index, (rows, columns) in enumerate(sizes.tolist()):
        alone = noise(kind, coupling, start=index, samples=40, rows=rows, columns=columns)
        padded = torch.zeros(40, 4, 6)
        padded[:, :rows, :columns] = alone[:, 0]
        assert torch.equal(values[:, index], padded)


def test_streams_are_uncorrelated():
    values = torch.stack([noise(GAUSSIAN, batch=300, rows=8, columns=8, stream=stream) for stream in range(5)])
    correlation = torch.corrcoef(values.flatten(1)) - torch.eye(5)
    assert correlation.abs().max().item() < 5 / math.sqrt(300 * 64)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="sizes of problem 0 must fit into the padded batch"):
        noise(GUMBEL, sizes=torch.tensor([[5, 4]]))


@pytest.mark.parametrize("sizes", [None, torch.tensor([[2, 3], [4, 1]])], ids=["full", "ragged"])
def test_the_operator_passes_the_checks_of_torch(sizes: Tensor | None):
    arguments = (torch.tensor([1, 2]), torch.tensor([5, 6]), 3, 0, 4, 3, sizes, 0, 0, GUMBEL, INDEPENDENT)
    assert set(torch.library.opcheck(_sampling_ops.noise, arguments).values()) == {"SUCCESS"}
    real = _sampling_ops.noise(*arguments)
    with FakeTensorMode() as mode:
        moved = [mode.from_tensor(each) if isinstance(each, Tensor) else each for each in arguments]
        fake = _sampling_ops.noise(*moved)
    assert (real.shape, real.dtype) == (fake.shape, fake.dtype)
