"""The plots of the demo's report. Colours follow Okabe and Ito, so that they differ for every kind of colour vision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from exgra_adapter.data.images import open_image
from exgra_adapter.demo.results import ARMS, Arm, DemoResult, History
from exgra_adapter.demo.scenes import TOPICS
from exgra_adapter.evaluation.metrics import Estimate
from exgra_adapter.pictures import LITERAL_TEXT

_COLOURS: dict[Arm, str] = {"with alignment": "#0072B2", "without alignment": "#D55E00"}
_MARKERS: dict[Arm, str] = {"with alignment": "o", "without alignment": "s"}
_DASHES: dict[Arm, str] = {"with alignment": "-", "without alignment": "--"}
_GREY = "#555555"
_STYLE = {
    **LITERAL_TEXT,
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "lines.linewidth": 2.2,
}
_DPI = 110


def plot_losses(result: DemoResult, path: Path) -> None:
    """Draws the autoregressive loss of all stages and the alignment loss of stage 2 against the step."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(11, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        config = result.config
        fine_tuning = config.caption_steps + config.instruct_steps
        _curve(left, result.caption_history, "ar_loss", color=_GREY, label="stage 1 (shared)")
        for arm in ARMS:
            style = {"color": _COLOURS[arm], "linestyle": _DASHES[arm]}
            history = result.arms[arm]
            _curve(left, history.instruct_history, "ar_loss", config.caption_steps, label=arm, **style)
            _curve(left, history.vqa_history, "ar_loss", fine_tuning, **style)
        for start, name in ((config.caption_steps, "stage 2"), (fine_tuning, "fine-tuning")):
            left.axvline(start, color=_GREY, linewidth=0.9, linestyle=":")
            left.text(start, 0.02, f" {name}", transform=left.get_xaxis_transform(), color=_GREY, fontsize=11)
        left.set(xlabel="optimizer step", ylabel="loss (nats per token)", title="Autoregressive loss", yscale="log")
        left.yaxis.set_major_locator(FixedLocator([0.1, 0.2, 0.5, 1, 2, 5, 10]))
        left.yaxis.set_major_formatter(ScalarFormatter())
        left.yaxis.set_minor_locator(NullLocator())
        left.legend(loc="upper right")
        aligned = result.arms["with alignment"].instruct_history
        _curve(right, aligned, "alignment_loss", color=_COLOURS["with alignment"])
        right.set(xlabel="step of stage 2", ylabel="loss (Hamming, 0 to 2)", title="Alignment loss", ylim=(0, 2))
        _save(figure, path)


def plot_alignment(result: DemoResult, path: Path) -> None:
    """Draws matching accuracy and retrieval per training step, and on held-out samples before and after stage 2."""
    history = result.arms["with alignment"].instruct_history
    chance = 100 / result.config.batch_size
    panels = {"matching_accuracy": "Recovered matching", "retrieval": "Cross-view retrieval"}
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(11, 4.4), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        steps = result.config.instruct_steps
        points = {"held out, before": (0, result.before, _GREY, "D")}
        for arm in ARMS:
            points[f"held out, after: {arm}"] = (steps, result.arms[arm].after, _COLOURS[arm], _MARKERS[arm])
        for axis, (key, title) in zip(axes, panels.items(), strict=True):
            _curve(axis, history, key, color=_COLOURS["with alignment"], alpha=0.75, label="training batches")
            for label, (step, values, colour, marker) in points.items():
                axis.plot(
                    step, 100 * getattr(values, key), marker, color=colour, markersize=11, markeredgecolor="white",
                    label=label, clip_on=False, zorder=5,
                )  # fmt: skip
            axis.axhline(chance, color=_GREY, linewidth=1.2, linestyle=":")
            axis.text(steps / 2, chance + 1.5, "chance", ha="center", color=_GREY, fontsize=11)
            axis.set(xlabel="step of stage 2", title=title, ylim=(0, 102))
        axes[0].set_ylabel("correct (%)")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        _save(figure, path)


def plot_scores(result: DemoResult, path: Path) -> None:
    """Draws the held-out scores of both arms with their intervals, beside the majority answer."""
    names = {"exact_match": "exact\nmatch", "open_recall": "open:\nrecall", "closed_accuracy": "closed:\naccuracy"}
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(11, 4.8), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(5, 6), sharey=True)
        keys = [*names, "summary"]
        rows = {arm: [getattr(result.arms[arm].scores, key) for key in keys] for arm in ARMS}
        majority = [getattr(result.majority, key) for key in keys]
        _interval_plot(left, [*names.values(), "open+closed\nmean"], rows, majority)
        left.set(ylabel="score (%)", title="Held-out questions", ylim=(0, 103))
        topics = [topic for topic in TOPICS if topic in result.majority_by_topic]
        by_topic = {arm: [result.arms[arm].by_topic.get(topic) for topic in topics] for arm in ARMS}
        _interval_plot(right, list(topics), by_topic, [result.majority_by_topic.get(topic) for topic in topics])
        right.set(title="Exact match by topic")
        handles, labels = right.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        _save(figure, path)


def plot_examples(result: DemoResult, images: Path, path: Path, columns: int = 4, rows: int = 3) -> None:
    """Draws a sheet of held-out pictures with question, reference answer and the answers of both arms."""
    chosen = _varied_examples(result, columns * rows)
    predictions = {arm: {p.id: p.prediction for p in result.arms[arm].predictions} for arm in ARMS}
    exact = {arm: {item.id: item.exact for item in result.arms[arm].scores.items} for arm in ARMS}
    # Sizes in inches: a square picture and below it one line of text for the question and one for each answer.
    side, text_height, gap, head = 2.6, 1.05, 0.2, 0.5
    width, height = columns * (side + gap) + gap, rows * (side + text_height) + head
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height))
        figure.text(
            gap / width, 1 - 0.25 / height, "Held-out phantoms: answers with and without the alignment loss",
            va="center", fontsize=15,
        )  # fmt: skip
        for place, index in enumerate(chosen):
            row, column = divmod(place, columns)
            left = gap + column * (side + gap)
            bottom = height - head - row * (side + text_height) - side
            axis = figure.add_axes((left / width, bottom / height, side / width, side / height))
            axis.axis("off")
            record = result.test_records[index]
            turn = record.turns[0]
            picture = np.asarray(open_image(images, record.image).convert("L"))
            axis.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            lines = [(turn.question, "black", "bold"), (f"truth: {turn.answer}", "black", "normal")]
            for arm in ARMS:
                mark = "\u2713" if exact[arm][record.id] else "\u2717"
                answer = predictions[arm][record.id]
                text = "no answer" if answer is None else answer or "(empty)"
                lines.append((f"{mark} {arm.split()[0]}: {text[:24]}", _COLOURS[arm], "normal"))
            for line, (text, colour, weight) in enumerate(lines):
                axis.text(
                    0, -(0.06 + 0.22 * line) / side, text, transform=axis.transAxes, va="top", color=colour,
                    weight=weight, fontsize=10,
                )  # fmt: skip
        _save(figure, path)


def _varied_examples(result: DemoResult, count: int) -> list[int]:
    """Takes the topics in turn and each picture once, in file order: nothing is chosen by how well it was answered."""
    queues = [[i for i, r in enumerate(result.test_records) if result.topics[r.id] == topic] for topic in TOPICS]
    chosen: list[int] = []
    pictures: set[str] = set()
    while any(queues) and len(chosen) < count:
        for queue in queues:
            while queue and result.test_records[queue[0]].image in pictures:
                queue.pop(0)
            if queue and len(chosen) < count:
                index = queue.pop(0)
                pictures.add(result.test_records[index].image)
                chosen.append(index)
    return chosen


def _curve(axis: Axes, history: History, key: str, offset: int = 0, **style: object) -> None:
    """Plots one logged quantity; shares are shown in percent."""
    points = [(offset + entry["step"], entry[key]) for entry in history if key in entry]
    factor = 100 if key in ("matching_accuracy", "retrieval") else 1
    axis.plot([step for step, _ in points], [factor * value for _, value in points], **style)


def _interval_plot(
    axis: Axes, names: list[str], rows: Mapping[Arm, list[Estimate | None]], majority: list[Estimate | None]
) -> None:
    for arm, shift in zip(ARMS, (-0.16, 0.16), strict=True):
        shown = [(position + shift, estimate) for position, estimate in enumerate(rows[arm]) if estimate is not None]
        values = np.array([[100 * e.value, 100 * e.low, 100 * e.high] for _, e in shown]).reshape(-1, 3)
        axis.errorbar(
            [position for position, _ in shown],
            values[:, 0],
            # A percentile interval need not hold the mean when there are few items.
            yerr=np.clip([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]], 0, None),
            fmt=_MARKERS[arm], color=_COLOURS[arm], markersize=9, capsize=5, elinewidth=2.2, label=arm,
        )  # fmt: skip
    shown = [(position, estimate) for position, estimate in enumerate(majority) if estimate is not None]
    axis.hlines(
        [100 * e.value for _, e in shown], [p - 0.36 for p, _ in shown], [p + 0.36 for p, _ in shown],
        color=_GREY, linewidth=2, label="most frequent answer",
    )  # fmt: skip
    axis.set_xticks(range(len(names)), names)
    axis.grid(axis="x", visible=False)


def _save(figure: Figure, path: Path) -> None:
    # The canvas is attached by hand: pyplot would choose a backend and keep every figure alive.
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=_DPI)
