"""What a classification leaves behind: a table, scores, a line for each question, and bar charts."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from exgra_adapter.atomic import write_bytes, write_json, write_text
from exgra_adapter.evaluation.choices import LETTERS
from exgra_adapter.evaluation.classification import ChoiceResult, ClassificationScores, RuleScores
from exgra_adapter.evaluation.metrics import Estimate
from exgra_adapter.pictures import LITERAL_TEXT

SCORES, ITEMS = "classification.json", "items.csv"
PICTURES = {"dataset": "accuracy_by_dataset.png", "modality": "accuracy_by_modality.png"}

_NAMES = {"generation": "generation", "likelihood": "likelihood", "likelihood_per_token": "likelihood per token"}
_GROUPS = {"dataset": "dataset", "modality": "modality", "question_type": "question type"}
# Okabe and Ito's colours differ for every kind of colour vision.
_LOOKS = {"generation": ("#0072B2", None), "likelihood": ("#E69F00", "//"), "likelihood_per_token": ("#009E73", "..")}
_STYLE = {
    **LITERAL_TEXT,
    "font.size": 12,
    "axes.titlesize": 14,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "hatch.linewidth": 0.5,
}
_DPI = 100
_BAR, _GAP, _FRAME = 0.22, 0.14, 1.9  # inches
_LONGEST_NAME = 34


def write_classification(
    folder: Path, results: Sequence[ChoiceResult], scores: ClassificationScores, method: str, seed: int
) -> None:
    """Writes all files of a classification into a folder: `classification.json`, `items.csv` and the bar charts.

    Args:
        folder: The folder; missing ones are made.
        results: The results.
        scores: What `score_choices` made of them.
        method: How options were chosen.
        seed: Of the bootstrap.
    """
    write_json(
        folder / SCORES, {"format": 1, "method": method, "seed": seed, "questions": len(results), **asdict(scores)}
    )
    for group, name in PICTURES.items():
        write_bytes(folder / name, plot_accuracy(scores, group))
    write_text(folder / ITEMS, format_items(results, scores))


def format_classification(scores: ClassificationScores) -> str:
    """Formats the accuracies as a table in percent, with 95 % intervals.

    Example:
        >>> from exgra_adapter.evaluation.choices import ChoiceItem
        >>> from exgra_adapter.evaluation.classification import score_choices
        >>> item = ChoiceItem("1", "Chest CT", "CT", "organ", "Which organ is it?", "a.png", ("lung", "liver"), 1)
        >>> print(format_classification(score_choices([ChoiceResult(item, "B")], "generation")))
        1 questions
        generation: 0 failed, 0 answers name no option; both count as wrong
        <BLANKLINE>
                       number  chance            generation
        all                 1    50.0  100.0  100.0 - 100.0
        <BLANKLINE>
        dataset
          Chest CT          1    50.0  100.0  100.0 - 100.0
        <BLANKLINE>
        modality
          CT                1    50.0  100.0  100.0 - 100.0
        <BLANKLINE>
        question type
          organ             1    50.0  100.0  100.0 - 100.0
    """
    rules = list(scores.rules)
    first = scores.rules[rules[0]]
    lines = [f"{first.accuracy.count} questions"]
    for rule, found in scores.rules.items():
        unmapped = f", {found.unmapped} answers name no option; both count as wrong" if rule == "generation" else ""
        lines.append(f"{_NAMES[rule]}: {found.failed} failed{unmapped}")
    names = [_short(name) for group in _GROUPS for name in _by(first, group)]
    width = max(13, *(len(name) + 4 for name in names))
    lines += ["", f"{'':<{width}}  number  chance  " + "  ".join(f"{_NAMES[rule]:>20}" for rule in rules)]
    lines.append(_row("all", width, scores.chance, [found.accuracy for found in scores.rules.values()]))
    for group, title in _GROUPS.items():
        lines += ["", title]
        for name in _by(first, group):
            estimates = [_by(found, group)[name] for found in scores.rules.values()]
            lines.append(_row(f"  {_short(name)}", width, scores.chance_by[group][name], estimates))
    return "\n".join(lines)


def format_items(results: Sequence[ChoiceResult], scores: ClassificationScores) -> str:
    """Formats a CSV table with a line for each question: what was asked, chosen and right."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    about = ["dataset", "question_id", "modality", "question_type", "image", "question", "options", "answer"]
    columns = [f"{rule}_{what}" for rule in scores.rules for what in ("choice", "correct")]
    table.writerow([*about, "text", "log_likelihoods", "tokens", *columns, "error"])
    for result in results:
        item = result.item
        row = [item.dataset, item.id, item.modality, item.question_type, item.image, item.question]
        row += [" | ".join(f"{letter}. {each}" for letter, each in zip(LETTERS, item.options, strict=False))]
        row += [LETTERS[item.answer], result.text or ""]
        row += [" ".join(f"{each:.6f}" for each in result.log_likelihoods or ())]
        row += [" ".join(map(str, result.tokens or ()))]
        for rule in scores.rules:
            chosen = result.chosen(rule)
            row += ["" if chosen is None else LETTERS[chosen], str(int(result.correct(rule)))]
        table.writerow([*row, result.error or ""])
    return text.getvalue()


def plot_accuracy(scores: ClassificationScores, group: str) -> bytes:
    """Draws the accuracy of each group, with its interval and the accuracy of guessing, as a PNG picture.

    Args:
        scores: The scores.
        group: "dataset", "modality" or "question_type".
    """
    names = list(_by(next(iter(scores.rules.values())), group))
    step = len(scores.rules) * _BAR + _GAP
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10, _FRAME + step * len(names)), layout="constrained")
        axes = figure.subplots()
        for number, (rule, found) in enumerate(scores.rules.items()):
            estimates = [_by(found, group)[name] for name in names]
            colour, hatch = _LOOKS[rule]
            axes.barh(
                [place * step + number * _BAR for place in range(len(names))],
                [each.value for each in estimates],
                height=_BAR,
                xerr=[
                    [max(0.0, each.value - each.low) for each in estimates],
                    [max(0.0, each.high - each.value) for each in estimates],
                ],
                color=colour,
                hatch=hatch,
                edgecolor="white",
                error_kw={"elinewidth": 1.2, "capsize": 2, "ecolor": "#333333"},
                label=_NAMES[rule],
            )
        middle = (len(scores.rules) - 1) * _BAR / 2
        reach = len(scores.rules) * _BAR / 2
        for place, name in enumerate(names):
            chance, centre = scores.chance_by[group][name], place * step + middle
            axes.plot([chance, chance], [centre - reach, centre + reach], color="black", linestyle=":", linewidth=1.8)
        counts = [_by(next(iter(scores.rules.values())), group)[name].count for name in names]
        labels = [f"{_short(name)} ({count})" for name, count in zip(names, counts, strict=True)]
        axes.set_yticks([place * step + middle for place in range(len(names))], labels)
        axes.set(
            xlim=(0, 1.02),
            title=f"Accuracy by {_GROUPS[group]}",
            xlabel="accuracy, 95 % interval (in brackets: questions)",
        )
        axes.set_ylim(len(names) * step - _GAP / 2 - _BAR / 2, -_GAP / 2 - _BAR / 2)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(axis="y", visible=False)
        guess = Line2D([], [], color="black", linestyle=":", linewidth=1.8, label="guessing")
        handles = [*axes.get_legend_handles_labels()[0], guess]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
        # The canvas is attached by hand: pyplot would choose a backend and keep every figure alive.
        FigureCanvasAgg(figure)
        content = io.BytesIO()
        figure.savefig(content, dpi=_DPI, format="png", metadata={"Software": None})
    return content.getvalue()


def _by(found: RuleScores, group: str) -> Mapping[str, Estimate]:
    return {
        "dataset": found.by_dataset,
        "modality": found.by_modality,
        "question_type": found.by_question_type,
    }[group]


def _row(name: str, width: int, chance: float, estimates: Sequence[Estimate]) -> str:
    cells = [f"{100 * each.value:.1f}  {100 * each.low:>5.1f} - {100 * each.high:>5.1f}" for each in estimates]
    return f"{name:<{width}}  {estimates[0].count:>6}  {100 * chance:>6.1f}  " + "  ".join(
        f"{cell:>20}" for cell in cells
    )


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}\u2026"
