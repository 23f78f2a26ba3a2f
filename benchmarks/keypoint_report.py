"""The section of the report on learning to match landmarks, with its picture."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, PercentFormatter

from benchmarks.machine import RESULTS
from benchmarks.output import BLUE, GREEN, GREY, ORANGE, figure
from benchmarks.tables import Row, percent, table

JSON = RESULTS / "keypoints.json"
PICTURE = RESULTS / "keypoints.png"
# Points of accuracy that training should add at least.
MARGIN = 0.05
# What estimators have in common, by the beginning of their names.
_FAMILIES = {
    "one or two exact solves": (BLUE, ("BlackBox", "Negative", "Straight")),
    "perturb and compare": (ORANGE, ("IMLE", "Adaptive")),
    "score of the noise, Fenchel-Young": (GREEN, ("Perturbed", "Fenchel", "Score")),
}
_LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))


def stored() -> dict[str, Any]:
    """Returns the last results."""
    return json.loads(JSON.read_text(encoding="utf-8"))


def grouped(rows: list[Row]) -> dict[str, list[Row]]:
    """Returns the rows of each estimator."""
    names = dict.fromkeys(row["estimator"] for row in rows)
    return {name: [row for row in rows if row["estimator"] == name] for name in names}


def section() -> str:
    """Landmarks: accuracy on unseen images for the same number of solved problems."""
    run = stored()
    experiment, rows = run["experiment"], run["benchmarks"]
    lines = []
    for name, own in grouped(rows).items():
        untrained, trained = (np.array([row[key] for row in own]) for key in ("untrained", "trained"))
        gain = 100 * (trained - untrained)
        lines.append(
            [
                f"{name}",
                _spread(trained),
                f"{gain.mean():+.1f} (least {gain.min():+.1f})",
                int(np.mean([row["steps"] for row in own])),
                f"{np.mean([row['solved'] for row in own]):,.0f}",
                f"{np.mean([row['cpu_seconds'] for row in own]):.1f}",
                percent(float(np.mean([row["zero_gradient_share"] for row in own]))),
            ]
        )
    seeds = {row["seed"]: row["untrained"] for row in rows}
    below = [name for name, own in grouped(rows).items() if min(r["trained"] - r["untrained"] for r in own) < MARGIN]
    verdict = (
        f"Every estimator adds at least {100 * MARGIN:.0f} points in every seed."
        if not below
        else f"Less than {100 * MARGIN:.0f} points in some seed: {', '.join(below)}."
    )
    text = (
        "CMU house and hotel, Willow duck and winebottle, from coordinates alone: 8 of 10 landmarks matched to 10, "
        "both sides turned by up to 90 degrees and jittered; tested without noise on frames and images that training "
        f"does not see. Every run solves {experiment['budget']:,} problems (five times as many where said; noisy ones "
        f"and those of the backward pass included), {experiment['batch']} pairs per step; Adam. Share of landmarks "
        "matched correctly in percent, "
        f"mean ± deviation over {experiment['seeds']} seeds, and points added; the same networks untrained: "
        f"{_spread(np.array(list(seeds.values())))}. *CPU s*: training, one thread. *no gradient*: problems of which "
        f"no cost got any. {verdict}"
    )
    headers = ["estimator", "trained", "points added", "steps", "problems solved", "CPU s", "no gradient"]
    options = "; ".join(
        f"{name}: `{own[0]['gradient']}`, {own[0]['learning_rate']:g}" for name, own in grouped(rows).items()
    )
    picture = f"![accuracy on unseen images by estimator]({PICTURE.name})"
    return f"{text}\n\n{picture}\n\n{table(headers, lines)}\n\nEstimators and learning rates: {options}."


def _spread(values: np.ndarray) -> str:
    return f"{100 * values.mean():.1f} ± {100 * values.std(ddof=1 if len(values) > 1 else 0):.1f}"


def draw(rows: list[Row]) -> None:
    """Draws the accuracy of all seeds at the end, and its course by the number of solved problems."""
    arms = grouped(rows)
    with figure(PICTURE, width=15, height=1.8 + 0.36 * len(arms)) as canvas:
        final, course = canvas.subplots(1, 2, width_ratios=(4, 5))
        untrained = np.mean([row["untrained"] for row in rows])
        counts = dict.fromkeys(_FAMILIES, 0)
        for place, (name, own) in enumerate(arms.items()):
            family, colour = next((f, c) for f, (c, starts) in _FAMILIES.items() if name.startswith(starts))
            scores = np.array([row["trained"] for row in own])
            final.plot([untrained, scores.mean()], [place, place], color=colour, linewidth=7, alpha=0.3, zorder=1)
            final.scatter(scores, np.full(len(scores), place), s=55, color=colour, zorder=2)
            curves = np.array([row["curve"] for row in own])
            # The start is drawn at one step's worth of problems: there is no zero on this axis.
            solved = np.maximum(curves[:, :, 0].mean(0), curves[:, 1, 0].mean() / 4)
            line = _LINES[counts[family] % len(_LINES)]
            course.plot(solved, curves[:, :, 1].mean(0), color=colour, linestyle=line, label=name)
            counts[family] += 1
        final.axvline(untrained, color=GREY, linestyle=":", linewidth=1.6)
        final.set(
            ylim=(len(arms) - 0.4, -0.6),
            title="Trained, each seed; dotted: untrained",
            xlabel="landmarks matched, unseen images",
        )
        final.set_yticks(range(len(arms)), list(arms), fontsize=12)
        final.grid(axis="y", visible=False)
        course.set(xscale="log", title="By problems solved, mean of the seeds", xlabel="problems solved in training")
        course.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        course.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=11, handlelength=3)
        final.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        course.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
