"""The tables of the gradient study."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.studies.gradient_measures import STEPS
from benchmarks.studies.gradient_picture import curve, sizes_of
from benchmarks.studies.gradient_scaling import SCALES, deviations
from benchmarks.studies.gradient_subjects import NEAR
from benchmarks.studies.points import percent
from benchmarks.tables import MISSING

Points = dict[str, Any]
_MEASURES = {
    "Error": "error",
    "Deviation": "deviation",
    "Mean cosine": "cosine",
    "Share of estimates that vanish": "zero_share",
}


def number(value: float | None, digits: int = 3) -> str:
    return MISSING if value is None else f"{value:.{digits}g}"


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Returns the lines of a table, its first column to the left and all others to the right."""
    lines = [header, [":---", *["---:"] * (len(header) - 1)], *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def truths(points: Points, known: list[Any]) -> list[str]:
    rows = []
    for subject in known:
        largest = max(curve(points, subject.name))
        point = points[f"main | {subject.name} | {largest}"]
        own, smoothed = point["own"], point["smoothed"]
        difference = points.get(f"difference | {subject.name}")
        exact = own is None or not subject.samples
        rows.append(
            [
                subject.name,
                subject.truth,
                subject.solves,
                number(difference, 1),
                MISSING if exact else f"{percent(own['bias'])} ± {percent(own['bias_error'], 1)}",
                MISSING if exact else number(own["p"], 2),
                MISSING if smoothed is None else percent(smoothed["bias"]),
                MISSING if smoothed is None else f"{smoothed['mean_cosine']:.3f}",
            ]
        )
    head = ["estimator", "it is the gradient of", "solves", "finite differences", "bias against that", "p",
            "bias against the smoothed loss", "cosine"]  # fmt: skip
    return [
        *table(head, rows),
        "",
        "*Finite differences*: relative difference of one estimate from central differences of the function under the",
        "same noise; estimators that differentiate the density of the noise are checked below. Biases, p and the",
        "cosine of the mean are those at the largest number of samples. `AdaptiveIMLE` reached λ = "
        f"{points['adapted']:.2g}.",
    ]


def samples(points: Points, known: list[Any]) -> list[str]:
    ours = sorted({samples for each in known for samples in curve(points, each.name)})
    lines: list[str] = []
    for name, key in _MEASURES.items():
        rows = []
        for subject in known:
            found = curve(points, subject.name)
            if subject.samples:
                rows.append([subject.name, *(number(found[each][key]) if each in found else MISSING for each in ours)])
        lines += [f"{name}:", "", *table(["estimator", *(f"S = {each}" for each in ours)], rows), ""]
    return lines[:-1]


def sizes(points: Points, settings: dict[str, Any]) -> list[str]:
    problems = sizes_of(points)
    names = list(next(iter(problems.values()))[0]["estimators"])
    rows = []
    for size, own in problems.items():
        cells = []
        for name in names:
            errors = [each["estimators"][name]["error"] for each in own]
            cosine = median(each["estimators"][name]["cosine"] for each in own)
            cells.append(f"{median(errors):.2g} ({min(errors):.2g} to {max(errors):.2g}); {cosine:.2f}")
        rows.append([f"{size} nodes, {own[0]['costs']} costs", *cells])
    count = len(next(iter(problems.values())))
    return [
        f"{count} random problems per size, S = {settings['problem_samples']}: error, median and range; median cosine.",
        "",
        *table(["size", *names], rows),
    ]


def exact(points: Points) -> list[str]:
    rows = []
    for key, point in points.items():
        if key.startswith("exact | "):
            perturbed, imle = point["PerturbedOptimizer"], point["IMLE"]
            rows.append(
                [
                    key.split(" | ")[1],
                    str(point["costs"]),
                    f"{percent(point['enumerated'])} ± {percent(point['enumerated_error'], 1)}",
                    number(perturbed["error"], 2),
                    f"{percent(perturbed['bias'])} ± {percent(perturbed['bias_error'], 1)}",
                    number(perturbed["p"], 2),
                    f"{percent(imle['bias'])} ± {percent(imle['bias_error'], 1)}",
                    f"{imle['mean_cosine']:.3f}",
                ]
            )
    deviation = max(points["layer"].values())
    head = ["problem", "costs", "enumerated truth: error", "`PerturbedOptimizer`: error", "bias", "p",
            f"`IMLE`, λ = {NEAR:g}: bias", "cosine"]  # fmt: skip
    return [
        "One node matched with the cheapest of m, whose shares are a softmax (Gumbel noise) or an integral (normal",
        "noise); two graphs of 2 nodes, a normal distribution function. S = 64, through `MatchingLayer` and its native",
        f"solvers; on the main problem that differs from enumeration by {deviation:.1g} of the largest entry.",
        "",
        *table(head, rows),
    ]


def steps(points: Points, settings: dict[str, Any]) -> list[str]:
    names = {
        "quadrature": "expected loss by quadrature, one node and 8",
        "common noise": "mean loss, common noise",
        "Fenchel-Young": "Fenchel-Young loss, common noise",
    }
    rows = [[text, *(f"{each:.1e}" for each in points[f"step | {kind}"])] for kind, text in names.items()]
    return [
        f"Relative difference from the gradient; noise: {settings['difference_samples']} draws, the same at both ends.",
        "",
        *table(["step / scale of the noise", *(f"{each:g}" for each in STEPS)], rows),
    ]


def perfect(points: Points) -> list[str]:
    rows = []
    for key, point in points.items():
        kind, *rest = key.split(" | ")
        if kind == "perfect":
            for_loss, for_mean = point["expected"], point["linearised"]
            rows.append(
                [
                    f"`{rest[0]}`, S = {rest[1]}",
                    number(for_loss["error"]),
                    f"{percent(for_loss['bias'])} ± {percent(for_loss['bias_error'], 1)}",
                    f"{for_loss['mean_cosine']:.3f}",
                    f"{percent(for_mean['bias'])} ± {percent(for_mean['bias_error'], 1)}",
                ]
            )
    head = ["estimator", "error", "bias against E L(y)", "cosine of the mean", "bias against L(E y)"]
    return [
        "L = 1 less the product of the entries of a matching that the solution without noise has: 0 for that matching,",
        "1 for all others. L of the mean solution is another function. Biases are relative to the norm of each",
        "gradient.",
        "",
        *table(head, rows),
    ]


def scales(points: Points) -> list[str]:
    rows: dict[tuple[str, str], list[str]] = {}
    for name, precision, scale, value in deviations(points):
        if scale != 1:
            rows.setdefault((name, precision), []).append("overflow" if value is None else f"{value:.1e}")
    cells = [[name.replace("lambda ", "λ = "), precision, *values] for (name, precision), values in rows.items()]
    return [
        "Largest difference of grad(sL) / s from grad(L), relative to its largest entry, in a weight matrix that makes",
        "the costs or the views, matrix products under autocast.",
        "",
        *table(["subject", "precision", *(f"s = {each:g}" for each in SCALES if each != 1)], cells),
    ]
