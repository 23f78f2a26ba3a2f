"""The gradient study in its quick size: its figures are true, and it would see what is wrong."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import graphmatch as gm

ROOT = Path(__file__).resolve().parents[2]
ALPHA = 1e-3
UNBIASED = ("PerturbedOptimizer", "ScoreFunction", "FenchelYoung")
IMLE = ("IMLE, λ = 0.3", "IMLE, λ = 1", "IMLE, one-sided, λ = 0.3", "AdaptiveIMLE")
LARGEST = 64  # samples of the quick size


@pytest.fixture(scope="module", autouse=True)
def _importable() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        pytest.importorskip("benchmarks")
        yield


def module(name: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.studies.{name}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a quick run."""
    place = tmp_path_factory.mktemp("results")
    module("gradient_validation").main(["--quick", "--output", str(place)])
    return place


@pytest.fixture(scope="module")
def points(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "gradient_validation.json").read_text(encoding="utf-8"))["points"]


# 1. The figures


@pytest.mark.parametrize("name", [*UNBIASED, *IMLE])
def test_means_are_the_estimators_own_truths(name: str, points: dict[str, Any]):
    own = points[f"main | {name} | {LARGEST}"]["own"]
    assert own["p"] > ALPHA
    assert own["bias"] < 4 * own["bias_error"] + 1e-9
    # The other sign, or a factor of 2, would be off by a whole norm.
    assert own["bias_error"] < 0.1
    assert own["mean_cosine"] > 0.98


def test_errors_of_unbiased_estimators_fall_like_the_root_of_the_samples(points: dict[str, Any]):
    for name in UNBIASED:
        errors = [points[f"main | {name} | {samples}"]["own"]["error"] for samples in (16, LARGEST)]
        assert errors[0] / errors[1] == pytest.approx(2.0, abs=0.2)


def test_a_bias_of_imle_remains(points: dict[str, Any]):
    near, far, one_sided = (points[f"main | {name} | {LARGEST}"]["smoothed"] for name in IMLE[:3])
    for each, expected in ((near, 0.055), (far, 0.38), (one_sided, 0.15)):
        assert each["bias"] == pytest.approx(expected, abs=5 * each["bias_error"])
    assert far["bias"] > one_sided["bias"] > near["bias"]


def test_estimates_are_finite_differences(points: dict[str, Any]):
    found = {key: value for key, value in points.items() if key.startswith("difference | ")}
    assert len(found) == 8
    assert max(found.values()) < 1e-6
    smooth = points["step | quadrature"]
    steps = module("gradient_measures").STEPS
    for (wide, narrow), (error, smaller) in zip(pairwise(steps[:6]), pairwise(smooth[:6]), strict=True):
        assert smaller / error == pytest.approx((narrow / wide) ** 2, rel=0.1)
    assert points["step | common noise"][0] > 5 * min(points["step | common noise"])


def test_exactly_known_gradients(points: dict[str, Any]):
    found = [value for key, value in points.items() if key.startswith("exact | ")]
    assert len(found) == 7
    for each in found:
        assert each["enumerated"] < 4 * each["enumerated_error"]
        assert each["PerturbedOptimizer"]["p"] > ALPHA
        assert each["PerturbedOptimizer"]["mean_cosine"] > 0.95
    assert max(points["layer"].values()) < 1e-12


def test_score_function_alone_has_the_gradient_of_a_loss_that_is_not_linear(points: dict[str, Any]):
    score, perturbed = (points[f"perfect | {name} | {LARGEST}"] for name in ("ScoreFunction", "PerturbedOptimizer"))
    assert score["expected"]["p"] > ALPHA
    assert perturbed["expected"]["p"] < 1e-12
    assert perturbed["distance"] > 0.5
    assert perturbed["linearised"]["bias"] < 0.1


@pytest.mark.parametrize(
    ("precision", "small", "large"), [("float32", 1e-5, 1e-5), ("bfloat16", 2e-2, 1e-5), ("float16", 0.2, 2e-3)]
)
def test_gradients_follow_the_loss(precision: str, small: float, large: float, points: dict[str, Any]):
    subjects = [*module("gradient_scaling").ESTIMATORS, "BarycenterAlignment"]
    assert len(subjects) == 9
    for name in subjects:
        deviation = points[f"scale | {name} | {precision}"]["deviation"]
        assert deviation[0] < small
        assert deviation[-1] < large
    assert points[f"scale | BarycenterAlignment(legacy=True) | {precision}"]["ratio"][-1] < 1e-3


def test_writes_text_and_picture(folder: Path, points: dict[str, Any]):
    text = (folder / "gradient_validation.md").read_text(encoding="utf-8")
    assert "No bias is seen at S = 64" in text
    assert "gradient_validation.png" in text
    assert f"| PerturbedOptimizer | {points['main | PerturbedOptimizer | 1']['own']['error']:.3g} |" in text
    assert (folder / "gradient_validation.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(each.suffix for each in folder.iterdir()) == [".json", ".md", ".png"]


def test_draws_stored_results_again(folder: Path):
    before = (folder / "gradient_validation.md").read_bytes()
    (folder / "gradient_validation.md").unlink()
    module("gradient_validation").main(["--plot-only", "--output", str(folder)])
    assert (folder / "gradient_validation.md").read_bytes() == before


# 2. What the study would see


@pytest.mark.parametrize(
    "wrong",
    [lambda values: -values, lambda values: 1.5 * values, lambda values: values.flip(1)],
    ids=["sign", "factor", "order"],
)
@pytest.mark.parametrize("name", ["PerturbedOptimizer", "FenchelYoung", "IMLE, λ = 0.3"])
def test_wrong_gradients_show(name: str, wrong: Any):
    measures, subjects = module("gradient_measures"), module("gradient_subjects")
    right = next(each for each in subjects.subjects() if each.name == name)
    subject = replace(right, estimates=lambda *arguments: wrong(right.estimates(*arguments)))
    settings = replace(measures.QUICK, samples=(256,))
    own = measures.measure(settings, subject, 256)["own"]
    assert own["p"] < 1e-9
    assert own["bias"] > 0.3
    if right.objective is not None:
        assert measures.own_difference(settings, subject) > 0.3


# 3. The truths


@pytest.mark.parametrize("noise", ["gumbel", "gaussian"])
def test_shares_of_the_cheapest(noise: str):
    truths = module("gradient_truths")
    generator = torch.Generator().manual_seed(0)
    costs, losses = (torch.randn(6, generator=generator, dtype=torch.float64) for _ in range(2))
    shares = truths.cheapest_shares(costs[None], noise)[0]
    assert float(shares.sum()) == pytest.approx(1.0, abs=1e-12)
    if noise == "gumbel":
        drawn = -torch.empty(400_000, 6, dtype=torch.float64).exponential_(generator=generator).log()
    else:
        drawn = torch.randn(400_000, 6, generator=generator, dtype=torch.float64)
    counted = torch.bincount((costs - drawn).argmin(1), minlength=6) / len(drawn)
    assert (counted - shares).abs().amax() < 5 * 0.5 / len(drawn) ** 0.5
    slopes = truths.central_differences(lambda each: truths.cheapest_shares(each, noise) @ losses, costs, 1e-5)
    torch.testing.assert_close(truths.cheapest_gradient(costs, losses, noise), slopes, rtol=1e-7, atol=1e-8)


def test_any_loss_of_the_solutions():
    truths = module("gradient_truths")
    problem = truths.study_problem(3, 5, 2000)
    enumerated, generator = problem.problem, torch.Generator().manual_seed(1)
    losses = torch.randn(len(enumerated.vertices), generator=generator, dtype=torch.float64)
    found, covariance = truths.loss_gradient(enumerated, problem.costs, losses, 20_000, 0)
    draws = truths.Draws.random(enumerated, 200_000, 1)

    def expected(costs: torch.Tensor) -> torch.Tensor:
        noisy = draws.noise @ draws.vertices.T
        return torch.stack([losses[(each - noisy).argmin(1)].mean() for each in costs @ draws.vertices.T])

    slopes = truths.central_differences(expected, problem.costs[0], 0.1)
    assert (found - slopes).norm() < 4 * covariance.trace().sqrt() + 0.05 * found.norm()


def test_the_problem_is_that_of_the_command_line():
    ours = module("gradient_truths").study_problem(4, 188, 100)
    theirs = importlib.import_module("graphmatch.studies.problems").StudyProblem.random(188, 100)
    assert torch.equal(ours.costs, theirs.costs)
    assert torch.equal(ours.reference, theirs.reference)


def test_noise_is_that_of_the_estimator():
    """The mean solution that the forward pass shows, from the noise of the finite differences."""
    truths, subjects = module("gradient_truths"), module("gradient_subjects")
    problem = truths.study_problem(4, 188, 100)
    draws = truths.Draws.of_estimate(problem.problem, 32, seed=7)
    estimator = gm.IMLE(samples=32, **subjects.noise_options(7))
    oracle = gm.gradients.FunctionOracle(problem.problem.solve)
    shown = gm.gradients.estimated_solution(estimator, oracle, problem.problem.split(problem.costs), True)[0]
    torch.testing.assert_close(problem.problem.flatten(shown), draws.minimum(problem.costs)[1])
