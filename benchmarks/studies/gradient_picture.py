"""The picture of the gradient study: error against samples and size, finite differences, scales of the loss."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.axes import Axes

from benchmarks.output import BLUE, GREEN, GREY, ORANGE, figure
from benchmarks.studies.gradient_measures import STEPS
from benchmarks.studies.gradient_scaling import SCALES

SKY, PINK, YELLOW, BLACK = "#56B4E9", "#CC79A7", "#E69F00", "#000000"
# Colour, dashes and marker of each estimator in all panels.
STYLES: dict[str, tuple[str, str, str]] = {
    "PerturbedOptimizer": (ORANGE, "-", "s"),
    "IMLE, λ = 0.3": (BLUE, "-", "o"),
    "IMLE, one-sided, λ = 0.3": (SKY, "-", "o"),
    "IMLE, λ = 1": (BLUE, "--", "o"),
    "AdaptiveIMLE": (PINK, "-", "v"),
    "FenchelYoung": (GREEN, "-", "D"),
    "BlackBox, λ = 1": (BLACK, "-", "x"),
    "NegativeIdentity": (GREY, "-", "+"),
    "StraightThroughSinkhorn, T = 1": (YELLOW, "-", "^"),
}
LABELS = {
    "PerturbedOptimizer": "PerturbedOptimizer, ScoreFunction",
    "FenchelYoung": "FenchelYoung, of its own loss",
}
_WITH_RANGE = ("PerturbedOptimizer", "IMLE, λ = 0.3")
# PyEPO's marks lie on the lines of the same formula.
PEERS = {
    "PyEPO DPO": (ORANGE, "DPO, I-MLE two-sided, PFY of PyEPO"),
    "PyEPO IMLE, λ = 0.3, two sides": (BLUE, None),
    "PyEPO PFY": (GREEN, None),
    "PyEPO IMLE, λ = 10 (default)": (GREY, "I-MLE of PyEPO, default λ = 10"),
}


def draw(result: dict[str, Any], path: Path) -> None:
    """Draws the four panels."""
    points = result["points"]
    with figure(path, width=16, height=12.5) as canvas:
        (samples, sizes), (steps, scales) = canvas.subplots(2, 2)
        _samples(samples, points)
        _sizes(sizes, points, result["settings"]["problem_samples"])
        _steps(steps, points)
        _scales(scales, points)
        handles: dict[str, Any] = {}
        for axes in (samples, sizes):
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        canvas.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)


def curve(points: dict[str, Any], name: str) -> dict[int, dict[str, Any]]:
    """Returns the figures of an estimator by number of samples: against the smoothed loss, or its own."""
    found = {}
    for key, point in points.items():
        kind, *rest = key.split(" | ")
        if kind == "main" and rest[0] == name:
            found[int(rest[1])] = point["smoothed"] or point["own"]
    return dict(sorted(found.items()))


def sizes_of(points: dict[str, Any]) -> dict[int, list[dict[str, Any]]]:
    """Returns the random problems by number of nodes."""
    found: dict[int, list[dict[str, Any]]] = {}
    for key, point in points.items():
        kind, *rest = key.split(" | ")
        if kind == "size":
            found.setdefault(int(rest[0]), []).append(point)
    return found


def _samples(axes: Axes, points: dict[str, Any]) -> None:
    for name, (colour, dashes, marker) in STYLES.items():
        found = curve(points, name)
        if len(found) > 1:
            errors = [each["error"] for each in found.values()]
            axes.plot(list(found), errors, dashes, marker=marker, color=colour, label=LABELS.get(name, name))
            last = found[max(found)]
            if last["bias"] > 3 * last["bias_error"]:
                axes.axhline(last["bias"], color=colour, linewidth=1.2, linestyle=":")
    for name, (colour, label) in PEERS.items():
        found = curve(points, name)
        errors = [each["error"] for each in found.values()]
        line = "-" if label and "default" in label else ""
        style = {"linestyle": line, "linewidth": 1.2, "markersize": 13, "markeredgewidth": 2, "fillstyle": "none"}
        axes.plot(list(found), errors, marker="o", color=colour, label=label, **style)
    ticks = list(curve(points, "PerturbedOptimizer"))
    axes.plot([], [], color=GREY, linewidth=1.2, linestyle=":", label="bias that remains")
    axes.set(xscale="log", yscale="log", xlabel="samples S", ylabel="error / norm of the gradient")
    axes.set(title="Error against samples, 4 nodes")
    _plain(axes, ticks)


def _sizes(axes: Axes, points: dict[str, Any], samples: int) -> None:
    problems = sizes_of(points)
    for name, (colour, dashes, marker) in STYLES.items():
        errors = [[each["estimators"][name]["error"] for each in own if name in each["estimators"]]
                  for own in problems.values()]  # fmt: skip
        if all(errors):
            middle = [median(each) for each in errors]
            axes.plot(list(problems), middle, dashes, marker=marker, color=colour, label=LABELS.get(name, name))
            if name in _WITH_RANGE:
                low, high = [min(each) for each in errors], [max(each) for each in errors]
                axes.fill_between(list(problems), low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set(
        yscale="log",
        xlabel="nodes of each graph",
        title=f"Error against size, S = {samples}; median, range of two lines",
    )
    _plain(axes, list(problems))


def _steps(axes: Axes, points: dict[str, Any]) -> None:
    lines = {
        "quadrature": ("expected loss, by quadrature", BLACK, "o"),
        "Fenchel-Young": ("Fenchel-Young loss, common noise", GREEN, "D"),
        "common noise": ("mean loss, common noise", ORANGE, "s"),
    }
    for kind, (label, colour, marker) in lines.items():
        axes.plot(STEPS, points[f"step | {kind}"], marker=marker, color=colour, label=label)
    axes.set(xscale="log", yscale="log", xlabel="step / scale of the noise", ylabel="difference / norm of the gradient")
    axes.set(title="Finite differences against the gradient")
    axes.legend(loc="lower right", fontsize=13)


def _scales(axes: Axes, points: dict[str, Any]) -> None:
    groups: dict[str, tuple[list[list[float | None]], str, str]] = {
        "graphmatch: all estimators, the alignment": ([], BLUE, "o"),
        "released recipe (legacy=True)": ([], ORANGE, "s"),
        "PyEPO: I-MLE and DBB, fixed λ": ([], PINK, "^"),
        "PyEPO: DPO, AIMLE, NID": ([], GREY, "x"),
    }
    names = list(groups)
    for key, point in points.items():
        kind, *rest = key.split(" | ")
        if kind != "scale":
            continue
        name, moves = rest[0], max(abs(each - 1) for each in point["ratio"] if each is not None) > 0.5
        place = (2 if moves else 3) if name.startswith("PyEPO") else int("legacy" in name)
        groups[names[place]][0].append(point["ratio"])
    smallest = 1e-6
    for place, (label, (ratios, colour, marker)) in enumerate(groups.items()):
        for number, ratio in enumerate(ratios):
            shown = [max(each, smallest) if each is not None else float("nan") for each in ratio]
            width = 6 if place == 0 else 2
            axes.plot(SCALES, shown, marker=marker, color=colour, linewidth=width, label=None if number else label)
    axes.set(xscale="log", yscale="log", ylim=(smallest, 1e6), xlabel="factor s on the loss")
    axes.set(ylabel="gradient per unit of s", title="Does the gradient follow the loss? float32, bfloat16, float16")
    axes.set_yticks([smallest, 1e-4, 1e-2, 1, 100], ["none", "0.0001", "0.01", "1", "100"])
    axes.set_xticks(SCALES, ["0.001", "1", "65536"])
    axes.minorticks_off()
    axes.legend(loc="upper right", fontsize=13)


def _plain(axes: Axes, ticks: list[int]) -> None:
    """Labels both axes in plain numbers."""
    axes.set_xticks(ticks, [str(each) for each in ticks])
    axes.minorticks_off()
    low, high = axes.get_ylim()
    shown = [each for each in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10) if low <= each <= high]
    axes.set_yticks(shown, [f"{each:g}" for each in shown])
