"""The report of the gradient study: a table, a picture, and the numbers for programs."""

from __future__ import annotations

import dataclasses
import json
import math
import textwrap
from pathlib import Path
from statistics import median
from typing import Any

from graphmatch.studies.gradients import BEST_LAMBDA, LAMBDAS, Row, StudyResult
from graphmatch.studies.report import BLUE, GREY, ORANGE, RED, SKY, drawing, table, write_files

NAME = "gradients"
_NONE = ""

# Name of the row -> label, colour, dashes, marker.
_LINES = {
    "no baseline": ("perturbed optimizer", GREY, ":", "s"),
    "leave-one-out": ("perturbed optimizer, leave-one-out", ORANGE, "-", "s"),
    f"one-sided, lambda {BEST_LAMBDA:g}": ("I-MLE, one-sided", SKY, "-", "o"),
    f"symmetric, lambda {BEST_LAMBDA:g}": ("I-MLE, symmetric", BLUE, "-", "o"),
}


def write_report(result: StudyResult, folder: Path) -> list[Path]:
    """Writes gradients.md, gradients.png and gradients.json, each as a whole, and returns their paths."""
    picture = f"\n![Error of gradient estimators]({NAME}.png)\n"
    content = json.dumps(as_json(result), indent=1, allow_nan=False) + "\n"
    return write_files(folder, NAME, as_markdown(result) + picture, as_png(result), content)


def as_json(result: StudyResult) -> dict[str, Any]:
    """Returns options, versions and figures as one JSON object; what was not measured is null."""
    content = dataclasses.asdict(result)
    for row in content["rows"]:
        row["lambda"] = row.pop("lambda_")
        row["rmse"] = {str(samples): error for samples, error in row["rmse"].items()}
    return content


def as_markdown(result: StudyResult) -> str:
    """Returns the report as Markdown, aligned for reading as it is."""
    study, smallest = result.study, result.study.samples[0]
    versions = ", ".join(f"{name} {version or 'not installed'}" for name, version in result.versions.items())
    lines = [
        "# Gradient estimators against the true gradient",
        "",
        *textwrap.wrap(_about(result), 110),
        "",
        *table(_header(study.samples), [_cells(row, study.samples) for row in result.rows]),
    ]
    if result.versions["pyepo"] is None:
        lines += ["", 'PyEPO: not installed (`pip install "pyepo>=2.2"`).']
    couplings = ", ".join(f"{error:.3g} {coupling}" for coupling, error in result.marginals.items())
    lines += ["", f"RMSE of the mean solutions that the forward pass shows, S = {smallest}: {couplings}."]
    if result.others:
        seeds = f"{study.seed + 1} to {study.seed + study.other_problems}"
        lines += ["", f"Relative RMSE at S = {smallest} on other problems, seeds {seeds}:", ""]
        rows = [[name, *(f"{each:.2f}" for each in _extent(errors))] for name, errors in result.others.items()]
        lines += table(["estimator", "median", "smallest", "largest"], rows)
    lines += ["", f"{versions}; {result.seconds:.0f} s.", ""]
    return "\n".join(lines)


def _about(result: StudyResult) -> str:
    study = result.study
    return (
        "Complete matchings of two graphs of 4 nodes and 4 edges: 32 costs, 24 solutions, all enumerated. The truth is "
        "the gradient of E<g, y(c - Z)> in the costs c, Z standard normal on all of them; g has root mean square 1, "
        f"and lambda is the factor on it (sigma = 1). {study.repetitions} independent estimates per figure, seed "
        f"{study.seed}. The truth is known to {100 * result.reference_error:.1g} %. RMSE and bias are relative to its "
        "norm, S is the number of samples. Bias: less what chance adds. Cosine: mean, at S = "
        f"{study.samples[0]}. Zero: share of estimates with one sample that vanish. Second best: what the solver "
        "returns by mistake. p: probability of such a mean if there were no bias."
    )


def _extent(errors: list[float]) -> tuple[float, float, float]:
    return median(errors), min(errors), max(errors)


def _header(samples: tuple[int, ...]) -> list[str]:
    errors = [f"RMSE, S = {each}" for each in samples]
    return ["estimator", "by", "solves", *errors, "slope", "bias", "cosine", "zero", "p"]


def _cells(row: Row, samples: tuple[int, ...]) -> list[str]:
    def number(value: float | None, form: str) -> str:
        return _NONE if value is None else format(value, form)

    bias = _NONE
    if row.bias is not None:
        bias = f"{row.bias:.3f}" + (f" +- {row.bias_standard_error:.3f}" if row.bias_standard_error else "")
    return [
        f"{row.group}: {row.name}",
        row.source,
        row.solves,
        *(number(row.rmse.get(each), ".3g") for each in samples),
        number(slope(row), ".2f"),
        bias,
        number(row.cosine, ".3f"),
        number(row.zero_share, ".2f"),
        number(row.p_value, ".2g"),
    ]


def slope(row: Row) -> float | None:
    """Returns the exponent by which the error changes with the samples: -1/2 without bias; None if not measured."""
    if len(row.rmse) < 2:
        return None
    (first, error), *_, (last, final) = row.rmse.items()
    return math.log(final / error) / math.log(last / first)


def as_png(result: StudyResult) -> bytes:
    """Returns the picture: error against samples, and against lambda."""
    with drawing(12, 6.2) as (figure, png):
        left, right = figure.subplots(1, 2)
        _draw_samples(left, result)
        _draw_lambdas(right, result)
        figure.legend(loc="outside lower center", ncols=3, fontsize=14)
        return png()


def _row(result: StudyResult, name: str) -> Row | None:
    return next((row for row in result.rows if row.name == name), None)


def _draw_samples(axes: Any, result: StudyResult) -> None:
    for name, (label, colour, dashes, marker) in _LINES.items():
        row = _row(result, name)
        if row is not None:
            errors = list(row.rmse.values())
            axes.plot(list(row.rmse), errors, color=colour, linestyle=dashes, marker=marker, label=label)
    samples = result.study.samples
    axes.set(xscale="log", yscale="log", xlabel="samples S", ylabel="RMSE / norm of the gradient")
    axes.set_title(f"Error against samples, lambda = {BEST_LAMBDA:g}")
    axes.set_xticks(samples, [str(each) for each in samples])
    _plain_ticks(axes)


def _draw_lambdas(axes: Any, result: StudyResult) -> None:
    smallest = result.study.samples[0]
    for form, colour in (("one-sided", SKY), ("symmetric", BLUE)):
        rows = [row for row in (_row(result, f"{form}, lambda {each:g}") for each in LAMBDAS) if row is not None]
        axes.plot([row.lambda_ for row in rows], [row.rmse[smallest] for row in rows], color=colour, marker="o")
        biased = [row for row in rows if row.bias is not None and row.bias > 3 * (row.bias_standard_error or 0)]
        axes.plot([row.lambda_ for row in biased], [row.bias for row in biased], color=colour, linestyle="--")
    axes.plot([], [], color=GREY, linestyle="--", label="I-MLE: bias alone")
    baseline = _row(result, "leave-one-out")
    if baseline is not None:
        axes.axhline(baseline.rmse[smallest], color=ORANGE)
    default = _row(result, "IMLE, lambda 10 (default)")
    if default is not None:
        at = [LAMBDAS[-1]], [default.rmse[smallest]]
        axes.plot(*at, "X", color=RED, markersize=14, label="PyEPO: I-MLE by default")
    axes.set(xscale="log", yscale="log", xlabel="lambda / scale of the noise")
    axes.set_title(f"Error against lambda, S = {smallest}")
    axes.set_xticks(LAMBDAS, [f"{each:g}" for each in LAMBDAS])
    _plain_ticks(axes)


def _plain_ticks(axes: Any) -> None:
    """Labels the error axis in plain numbers."""
    axes.minorticks_off()
    low, high = axes.get_ylim()
    ticks = [each for each in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5) if low <= each <= high]
    axes.set_yticks(ticks, [f"{each:g}" for each in ticks])
