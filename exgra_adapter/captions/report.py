"""The report of a caption run: counts, reasons, tokens and cost, and a picture of the length ratios."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exgra_adapter.atomic import write_bytes, write_text
from exgra_adapter.captions.filters import CHECKS, Limits
from exgra_adapter.captions.merge import RATIO_EDGES, Outcome
from exgra_adapter.endpoint import EndpointSettings, JournalIndex
from exgra_adapter.reporting.markdown import number, percent, table

# Okabe and Ito's colours differ for every kind of colour vision.
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#555555"


def write_report(
    path: Path,
    outcome: Outcome,
    index: JournalIndex,
    settings: EndpointSettings,
    limits: Limits,
    files: Mapping[str, Path],
) -> None:
    """Writes the report and beside it its picture, `STEM.png`.

    Args:
        path: The Markdown file.
        outcome: What became of the pairs.
        index: The journal, for tokens.
        settings: The endpoint; its key is not written.
        limits: How strict the checks were.
        files: Label and path of each file that belongs to the run.
    """
    picture = path.with_suffix(".png")
    asked = outcome.good + sum(outcome.rejected.values())
    if asked:
        plot_ratios(outcome, picture)
    sections = [
        f"# Extended answers for {files['input'].name}",
        f"Model `{settings.model}`; "
        + ", ".join(f"{label} `{file}`" for label, file in files.items())
        + ". A language model wrote the extended answers without seeing the images; they are for research, not for "
        "clinical use.",
        "## Counts",
        table(["", "number", "share"], _counts(outcome)),
        "## Rejected replies",
        f"Each reply is counted at the first check that it fails. Limits: at most {limits.longest:g} times the word "
        f"limit (20 words always pass), at least {limits.shortest:g} times the answer, "
        f"{percent(limits.kept_terms)} of medical terms kept.",
        table(
            ["check", "a rejected reply is or has", "number", "share of replies"],
            [
                [
                    name,
                    meaning,
                    number(outcome.rejected[name]),
                    percent(outcome.rejected[name] / asked if asked else None),
                ]
                for name, meaning in CHECKS.items()
            ],
            numbers=False,
        ),
    ]
    if outcome.examples:
        sections += ["Examples:", table(["check", "item", "answer", "reply"], _examples(outcome), numbers=False)]
    if outcome.failed or outcome.missing:
        rows = [
            [reason, number(count), ", ".join(outcome.failed_keys[reason])]
            for reason, count in outcome.reasons.most_common()
        ]
        rows += [["not asked yet", number(outcome.missing), ""]] if outcome.missing else []
        sections += ["## Items without a reply", table(["reason", "number", "first items"], rows, numbers=False)]
        sections.append("An item is called SAMPLE.TURN, both counted from 0; the journal has all of them.")
        sections.append("Ask for them again with `--resume --retry-failed`.")
    cost = settings.cost(index.input_tokens, index.output_tokens)
    sections += [
        "## Tokens",
        table(
            ["", "input", "output", "cost"],
            [["all runs together", number(index.input_tokens), number(index.output_tokens), number(cost)]],
        ),
        "As the endpoint counted them, retried replies included; replies that never arrived are not known here.",
    ]
    if asked:
        sections += ["## Length", f"![Length ratios]({picture.name})"]
    write_text(path, "\n\n".join(sections) + "\n")


def plot_ratios(outcome: Outcome, path: Path) -> None:
    """Draws how much longer extended answers are than answers, good and rejected ones, into a PNG file."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    style = {
        "font.size": 13,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.subplots()
        good, rejected = outcome.ratios
        axes.stairs(good, RATIO_EDGES, fill=True, color=_BLUE, label=f"good ({good.sum():,})")
        axes.stairs(
            good + rejected,
            RATIO_EDGES,
            baseline=good,
            fill=True,
            color=_ORANGE,
            label=f"rejected ({rejected.sum():,})",
        )
        axes.axvline(
            2, color=_GREY, linestyle="--", linewidth=1.2, label="limit that the model is told, from three words on"
        )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator([0.25, 0.5, 1, 2, 4, 8, 16, 32, 64]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlabel="words of the extended answer per word of the answer", ylabel="replies", xlim=(0.25, 64))
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=11)
        FigureCanvasAgg(figure)
        content = io.BytesIO()
        figure.savefig(content, dpi=110, format="png")
    write_bytes(path, content.getvalue())


def _counts(outcome: Outcome) -> list[list[str]]:
    def row(label: str, count: int, whole: int) -> list[str]:
        return [label, number(count), percent(count / whole if whole else None)]

    rows = [
        row("samples", outcome.samples, outcome.samples),
        row("with new extended answers", outcome.extended, outcome.samples),
        row("with extended answers from before, kept", outcome.had, outcome.samples),
        row("without", outcome.without, outcome.samples),
        row("question-answer pairs to ask about", outcome.pairs, outcome.pairs),
        row("good replies", outcome.good, outcome.pairs),
        row("of these, no more than the answer", outcome.same, outcome.pairs),
        row("rejected replies", sum(outcome.rejected.values()), outcome.pairs),
        row("failed", outcome.failed, outcome.pairs),
        row("not asked yet", outcome.missing, outcome.pairs),
    ]
    return [*rows, row("filled by template", outcome.filled, outcome.pairs)] if outcome.filled else rows


def _examples(outcome: Outcome) -> list[list[Any]]:
    return [
        [check, key, _shorten(answer), _shorten(text)]
        for check in CHECKS
        for key, answer, text in outcome.examples.get(check, ())
    ]


def _shorten(text: str, length: int = 120) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
