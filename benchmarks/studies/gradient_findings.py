"""The text of the gradient study: what was found, in numbers, and the tables behind it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise
from statistics import median
from typing import Any

from benchmarks.studies import gradient_tables as tables
from benchmarks.studies.gradient_measures import STEPS
from benchmarks.studies.gradient_picture import curve, sizes_of
from benchmarks.studies.gradient_scaling import PRECISIONS, SCALES, deviations
from benchmarks.studies.gradient_subjects import NEAR, subjects
from benchmarks.studies.points import described, percent

Points = dict[str, Any]
NEAREST = f"IMLE, λ = {NEAR:g}"
_GOAL = 0.3
_DOUBT = 0.001  # p below which a bias counts as seen


def markdown(result: dict[str, Any], picture: str) -> str:
    """Returns the report."""
    points, settings = result["points"], result["settings"]
    known = [each for each in subjects() if curve(points, each.name)]
    sections = [
        ["# Gradient estimators against the truth", "", *_introduction(settings), ""],
        [f"![error against samples and size, finite differences, scales of the loss]({picture})", ""],
        ["## What was found", "", *(f"- {each}" for each in _findings(points, settings)), ""],
        ["## Which truth", "", *tables.truths(points, known), ""],
        ["## Samples", "", *tables.samples(points, known), ""],
        ["## Size", "", *tables.sizes(points, settings), ""],
        ["## Gradients known to rounding", "", *tables.exact(points), ""],
        ["## Finite differences", "", *tables.steps(points, settings), ""],
        ["## A loss that is not linear", "", *tables.perfect(points), ""],
        ["## Scale of the loss", "", *tables.scales(points), ""],
        [f"Measured with: {described(result)}"],
    ]
    return "\n".join(line for section in sections for line in section) + "\n"


def _introduction(settings: dict[str, Any]) -> list[str]:
    return [
        "Complete matchings of two graphs of 4 nodes and 4 directed edges: 32 costs, 24 solutions, all enumerated;",
        "costs c and noise Z standard normal, on all costs; the loss is ⟨g, y⟩ with g of root mean square 1, where",
        f"nothing else is said. {settings['repetitions']} independent estimates per figure (fewer of PyEPO's, which",
        "solve one by one). *Error*: root mean square, *deviation*: root of the total variance, *bias*: of the mean,",
        "less what chance adds; all relative to the norm of the true gradient. S: samples per estimate.",
        "F(c) = E min ⟨c − Z, y⟩. p: probability of a mean as far from the truth if there were no bias (Hotelling).",
    ]


def _findings(points: Points, settings: dict[str, Any]) -> Iterator[str]:
    last = max(settings["samples"])
    yield _unbiased(points, last)
    yield _imle(points, last)
    yield _needed(points)
    yield _no_noise(points)
    yield _checked(points)
    yield _larger(points)
    yield _not_linear(points, last)
    yield from _scaled(points)
    if curve(points, "PyEPO DPO"):
        yield _beside(points)


def _unbiased(points: Points, last: int) -> str:
    names = ("PerturbedOptimizer", "ScoreFunction", "FenchelYoung")
    found = {name: points[f"main | {name} | {last}"] for name in names}
    texts = ", ".join(f"{name} p = {each['own']['p']:.2g}" for name, each in found.items())
    surest = max(each["own"]["deviation"] / math.sqrt(each["repetitions"]) for each in found.values())
    (first, start), *_, (_, end) = curve(points, "PerturbedOptimizer").items()
    rate = math.log(end["error"] / start["error"]) / math.log(last / first)
    return (
        "**`PerturbedOptimizer` and `ScoreFunction` estimate the gradient of the smoothed loss, `FenchelYoung` that of "
        f"its own loss.** {_seen(found.values())} at S = {last}: {texts}; the mean is known to {percent(surest)} of "
        f"the gradient. The error of the first changes like S^{rate:.2f}."
    )


def _seen(found: Iterable[dict[str, Any]]) -> str:
    """Says whether a bias shows against the estimators' own truths."""
    biased = sum(each["own"]["p"] < _DOUBT for each in found)
    return f"A bias is seen in {biased}" if biased else "No bias is seen"


def _imle(points: Points, last: int) -> str:
    forms = (NEAREST, "IMLE, λ = 1", f"IMLE, one-sided, λ = {NEAR:g}")
    found = {name: points[f"main | {name} | {last}"] for name in forms}
    own = ", ".join(f"{each['own']['p']:.2g}" for each in found.values())
    floors = []
    for name, each in found.items():
        bias, error = each["smoothed"]["bias"], each["smoothed"]["bias_error"]
        cosine = f"cosine of the mean {each['smoothed']['mean_cosine']:.3f}"
        floors.append(f"{name.removeprefix('IMLE, ')}: {percent(bias)} ± {percent(error, 1)}, {cosine}")
    return (
        "**`IMLE` estimates a difference quotient of F along g, not a derivative: it is biased by design.** "
        f"{_seen(found.values())} against that quotient (p = {own}). Against the smoothed loss a bias remains that no "
        f"number of samples removes ({'; '.join(floors)})."
    )


def _needed(points: Points) -> str:
    texts = []
    for name in (NEAREST, f"IMLE, one-sided, λ = {NEAR:g}", "AdaptiveIMLE", "PerturbedOptimizer"):
        needed = samples_for(curve(points, name), _GOAL)
        shown = f"more than {max(curve(points, name))}" if needed is None else f"{needed:.0f}"
        texts.append(f"`{name}` {shown}")
    return f"**Samples for an error of {_GOAL:.0%}** of the smoothed gradient: {', '.join(texts)}."


def samples_for(errors: dict[int, dict[str, Any]], goal: float) -> float | None:
    """Returns the number of samples at which the error reaches the goal, by interpolation; None if it does not."""
    for (first, before), (second, after) in pairwise(errors.items()):
        if before["error"] > goal >= after["error"]:
            share = math.log(before["error"] / goal) / math.log(before["error"] / after["error"])
            return float(first * (second / first) ** share)
    return None


def _no_noise(points: Points) -> str:
    problems = [each for own in sizes_of(points).values() for each in own]
    names = [name for name in problems[0]["estimators"] if len(curve(points, name)) == 1]
    texts = []
    for name in names:
        cosines = [each["estimators"][name]["cosine"] for each in problems]
        errors = [each["estimators"][name]["error"] for each in problems]
        extent = f"{min(cosines):.2f} to {max(cosines):.2f}"
        texts.append(f"`{name}` {median(cosines):.2f} ({extent}), error {median(errors):.2g}")
    return (
        "**Without noise there is no variance, and no way to lower the bias.** Cosine with the smoothed gradient on "
        f"{len(problems)} random problems of all sizes, median and range: {'; '.join(texts)}. They are gradients of "
        "other functions (table below)."
    )


def _checked(points: Points) -> str:
    own = {key.split(" | ")[1]: value for key, value in points.items() if key.startswith("difference | ")}
    worst = max(own, key=lambda name: own[name])
    exact = [point for key, point in points.items() if key.startswith("exact | ")]
    ratio = max(each["enumerated"] / each["enumerated_error"] for each in exact)
    smooth, noisy = points["step | quadrature"], points["step | common noise"]
    return (
        f"**Finite differences.** {len(own)} forms of estimators are the gradient of a function under the noise they "
        f"drew: central differences of it differ by at most {own[worst]:.1g} ({worst}). Those of the expected loss, by "
        f"quadrature, differ from its gradient by {min(smooth):.1g}; those of the mean loss of drawn noise, which "
        f"jumps, by {percent(min(noisy))} at best and {percent(noisy[0])} at a step of {STEPS[0]:g}. Where the "
        f"gradient is known in closed form or by quadrature, the enumerated one is off by at most {ratio:.1f} of its "
        "standard errors."
    )


def _larger(points: Points) -> str:
    problems = sizes_of(points)
    small, large = min(problems), max(problems)
    texts = []
    for name in ("PerturbedOptimizer", NEAREST):
        errors = [median(each["estimators"][name]["error"] for each in problems[size]) for size in (small, large)]
        texts.append(f"`{name}` from {errors[0]:.2g} to {errors[1]:.2g}")
    costs = [problems[size][0]["costs"] for size in (small, large)]
    return (
        f"**Size.** From {small} to {large} nodes ({costs[0]} to {costs[1]} costs) the median error at the same number "
        f"of samples goes: {', '.join(texts)}."
    )


def _not_linear(points: Points, last: int) -> str:
    score, perturbed = (points[f"perfect | {name} | {last}"] for name in ("ScoreFunction", "PerturbedOptimizer"))
    bias, error = score["expected"]["bias"], score["expected"]["bias_error"]
    return (
        f"**A loss that is not linear** (1 unless all is right) parts the two: at S = {last} `ScoreFunction` has a "
        f"bias of {percent(bias)} ± {percent(error, 1)} (p = {score['expected']['p']:.2g}); `PerturbedOptimizer` "
        f"linearises the loss at the mean solution, whose gradient is {percent(perturbed['distance'])} away, and has "
        f"a bias of {percent(perturbed['expected']['bias'])}."
    )


def _scaled(points: Points) -> Iterator[str]:
    own: dict[tuple[str, float], float] = {}
    overflows = 0
    for name, precision, scale, value in deviations(points):
        if not name.startswith("PyEPO") and "legacy" not in name:
            overflows += value is None
            own[precision, scale] = max(own.get((precision, scale), 0.0), value or 0.0)
    small, large = (
        ", ".join(f"{own[precision, scale]:.1g} in {precision}" for precision in PRECISIONS)
        for scale in (SCALES[0], SCALES[-1])
    )
    yield (
        "**grad(sL) against s grad(L).** Largest deviation of all eight estimators and of `BarycenterAlignment`, "
        f"relative to the largest entry, half precisions by autocast: {large} at s = {SCALES[-1]:g}; {small} at s = "
        f"{SCALES[0]:g}, where float16 has few digits left: what loss scaling is for. "
        f"{overflows or 'No'} overflow{'s' if overflows > 1 else ''}."
    )
    legacy = points["scale | BarycenterAlignment(legacy=True) | float32"]["ratio"]
    text = (
        f"**Not homogeneous**: per unit of loss the gradient changes to {legacy[-1]:.1g} at s = {SCALES[-1]:g} in the "
    )
    text += "released recipe (`legacy=True`)"
    for key, point in points.items():
        if key.startswith("scale | PyEPO ") and abs(point["ratio"][-1] - 1) > 0.5:
            text += f", to {point['ratio'][-1]:.1g} in {key.split(' | ')[1].replace('lambda', 'λ =')}"
    yield text + ". Loss weights, accumulation and loss scaling change what such an estimator does."


def _beside(points: Points) -> str:
    pairs = {
        "PyEPO DPO": "PerturbedOptimizer",
        "PyEPO IMLE, λ = 0.3, two sides": NEAREST,
        "PyEPO PFY": "FenchelYoung",
    }
    samples = 64 if 64 in curve(points, "PyEPO DPO") else max(curve(points, "PyEPO DPO"))
    texts = []
    for peer, own in pairs.items():
        theirs, ours = (f"{curve(points, name)[samples]['error']:.2g}" for name in (peer, own))
        texts.append(f"{peer.removeprefix('PyEPO ')} {theirs} (`{own}` {ours})")
    default = curve(points, "PyEPO IMLE, λ = 10 (default)")
    return (
        f"**PyEPO beside it**, the same noise and loss, error at S = {samples}: {', '.join(texts)}. Its I-MLE with the "
        f"default λ = 10 is at {percent(default[max(default)]['error'])} even at S = {max(default)}."
    )
