"""Says what the studies of learning found: a table, differences with intervals, a picture, and the cost."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.output import write_text
from benchmarks.studies.arms import FRACTIONS, MARGIN, OBJECTIVES
from benchmarks.studies.learning_plots import DRAWERS
from benchmarks.studies.statistics import Interval, Results, difference, estimate
from benchmarks.tables import MISSING, table

StudyResults = Mapping[str, Results]

_COLUMNS = {
    "image_retrieval": "image–text retrieval",
    "retrieval": "retrieval, all views",
    "plain_matching": "matching, plain nodes",
    "matching": "matching, trained messages",
    "own_matching": "matching, own graphs",
    "zero_gradient_share": "silent steps",
    "answers": "answers",
}
_READING = (
    "The demo's tiny model on drawn pictures: stage 1, stage 2 as the rows say, then fine-tuning on questions, "
    "which is alike for all rows, as are data, initial weights and order of samples of a seed. {before}All is "
    "measured on unseen pictures with correct texts, read alone. *Image–text retrieval*: the most similar text "
    "among {batch} belongs to the image, or the other way round, about {chance:.0f} % by chance; *all "
    "views*: between the two texts as well, which is easier. "
    "*Matching*: share of nodes matched with their own barycenter node, leave-one-out with k = 5, in graphs of "
    "{batch}: of the nodes as they are, behind the trained message passing, or with the k, N and barycenter of "
    "the row. *Silent steps*: training steps whose matchings sent no gradient. *Answers*: mean of open recall and "
    "closed accuracy after fine-tuning. Means over {seeds} seeds, ± half of the 95 % interval (Student's t)."
)
_BEFORE = (
    "Before, as with a pretrained model, it has learned to talk about other pictures of {organs} without "
    "alignment ({steps} steps); other organs are new to it. "
)


@dataclass(frozen=True)
class StudyText:
    """The words of a study.

    Attributes:
        title: Of the page.
        question: What it asks, and how the rows are made.
        measures: Columns of the table of differences.
        pairs: Which rows are compared, (first, second) for first minus second.
        keys: The comparisons that answer the question, (first, second, measure).
    """

    title: str
    question: str
    measures: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    keys: tuple[tuple[str, str, str], ...]


def _against(reference: str, labels: Iterable[str]) -> tuple[tuple[str, str], ...]:
    return tuple((label, reference) for label in labels)


_WORSE = (
    *(f"dropout {share} %" for share in (25, 50, 75, 100)),
    *(f"{kind} {share} %" for kind in ("swap", "hallucination") for share in (50, 100)),
)
_TEXTS = {
    "caption_quality": StudyText(
        "How much does alignment need good extended answers?",
        "The extended answers of stage 2 are made worse. *Dropout*: every word is left out with this "
        "probability, down to a lone full stop. *Swap*: this share of the samples has the extended answers of "
        "other samples. *Hallucination*: this share reports lesions that the picture lacks (number, side and "
        "size are wrong), while modality and organ stay true.",
        ("image_retrieval", "retrieval", "plain_matching", "answers"),
        (
            *_against("as written", _WORSE),
            *_against("without extended answers", ("as written", "dropout 100 %", "swap 100 %", "hallucination 100 %")),
            *_against("AR only", ("as written", "without extended answers", "dropout 100 %", "swap 100 %")),
        ),
        (
            *(
                (label, "as written", measure)
                for measure in ("image_retrieval", "retrieval")
                for label in ("dropout 50 %", "dropout 100 %", "swap 50 %", "swap 100 %", "hallucination 100 %")
            ),
            ("as written", "without extended answers", "image_retrieval"),
            ("swap 100 %", "without extended answers", "image_retrieval"),
            ("as written", "AR only", "answers"),
            ("as written", "without extended answers", "answers"),
            ("swap 100 %", "as written", "answers"),
            ("hallucination 100 %", "as written", "answers"),
        ),
    ),
    "neighbours": StudyText(
        "How much do the number of neighbours k and the size of the graph N matter?",
        "Alignment with k neighbours in graphs of 16 nodes; and with k = 5 in graphs of N nodes, where an "
        "optimizer step always has 32 samples (4 graphs of 8, 2 of 16, 1 of 32), so that nothing but the graphs "
        "differs. All rows have seen as many samples; those with N have made half as many, larger steps: "
        "compare them with each other only. The larger a graph, the harder it is to match: figures of *own graphs* of "
        "different sizes are not comparable.",
        ("image_retrieval", "retrieval", "matching", "own_matching", "answers"),
        (*_against("k = 5", ("k = 1", "k = 3", "k = 10")), *_against("N = 16", ("N = 8", "N = 32"))),
        (
            ("k = 1", "k = 5", "retrieval"),
            ("k = 10", "k = 5", "retrieval"),
            ("k = 1", "k = 5", "matching"),
            ("k = 10", "k = 5", "matching"),
            ("k = 10", "k = 5", "own_matching"),
            ("k = 1", "k = 5", "answers"),
            ("k = 10", "k = 5", "answers"),
            ("N = 8", "N = 16", "image_retrieval"),
            ("N = 32", "N = 16", "image_retrieval"),
            ("N = 8", "N = 16", "retrieval"),
            ("N = 32", "N = 16", "retrieval"),
            ("N = 8", "N = 16", "matching"),
            ("N = 32", "N = 16", "matching"),
            ("N = 8", "N = 16", "answers"),
            ("N = 32", "N = 16", "answers"),
        ),
    ),
    "barycenter": StudyText(
        "Leave-one-out or mean barycenter, with or without noise and margin?",
        "A view is matched with the mean of the other views (leave-one-out, the default) or of all views, "
        "itself among them (mean, as in the paper). The gradient through the matching is that of implicit "
        "maximum likelihood under noise (IMLE), or the black-box difference without noise. A *margin* of "
        f"{MARGIN} is added to the costs of right matches in training, in units of cosines like the noise. "
        "*Released recipe*: the mean, with all details of the published training.",
        (
            "image_retrieval",
            "retrieval",
            "plain_matching",
            "matching",
            "own_matching",
            "zero_gradient_share",
            "answers",
        ),
        (
            ("mean, IMLE", "leave-one-out, IMLE"),
            ("mean, no noise", "leave-one-out, no noise"),
            ("leave-one-out, no noise", "leave-one-out, IMLE"),
            ("mean, no noise", "mean, IMLE"),
            ("leave-one-out, margin", "leave-one-out, no noise"),
            ("mean, margin", "mean, no noise"),
            ("leave-one-out, margin", "leave-one-out, IMLE"),
            ("mean, margin", "leave-one-out, margin"),
            ("leave-one-out, IMLE and margin", "leave-one-out, IMLE"),
            ("mean, IMLE and margin", "mean, IMLE"),
            ("released recipe", "leave-one-out, IMLE"),
            *_against("AR only", ("leave-one-out, IMLE", "mean, IMLE", "released recipe")),
        ),
        (
            *(
                (*pair, measure)
                for measure in ("image_retrieval", "retrieval", "plain_matching")
                for pair in (
                    ("mean, IMLE", "leave-one-out, IMLE"),
                    ("mean, no noise", "leave-one-out, no noise"),
                    ("leave-one-out, no noise", "leave-one-out, IMLE"),
                    ("mean, no noise", "mean, IMLE"),
                    ("leave-one-out, margin", "leave-one-out, no noise"),
                    ("mean, margin", "mean, no noise"),
                    ("leave-one-out, margin", "leave-one-out, IMLE"),
                    ("leave-one-out, IMLE and margin", "leave-one-out, IMLE"),
                    ("released recipe", "leave-one-out, IMLE"),
                )
            ),
            ("mean, no noise", "leave-one-out, no noise", "own_matching"),
            ("mean, no noise", "mean, IMLE", "zero_gradient_share"),
            ("leave-one-out, IMLE", "AR only", "answers"),
            ("mean, IMLE", "AR only", "answers"),
            ("released recipe", "AR only", "answers"),
            ("mean, IMLE", "leave-one-out, IMLE", "answers"),
            ("released recipe", "leave-one-out, IMLE", "answers"),
        ),
    ),
    "data_efficiency": StudyText(
        "How does each objective use little data in stage 2?",
        "Stage 2 sees a share of the pictures, smaller shares contained in larger ones, for as many steps: with "
        "10 % each picture comes ten times as often. Stage 1 and fine-tuning use all pictures.",
        ("image_retrieval", "retrieval", "plain_matching", "answers"),
        (
            *(
                (f"alignment, {round(100 * fraction)} %", f"{name}, {round(100 * fraction)} %")
                for fraction in FRACTIONS
                for name in OBJECTIVES
                if name != "alignment"
            ),
            *((f"{name}, 10 %", f"{name}, 100 %") for name in OBJECTIVES),
            ("alignment, 10 %", "AR only, 100 %"),
        ),
        (
            *(
                (f"alignment, {round(100 * fraction)} %", f"{name}, {round(100 * fraction)} %", "answers")
                for fraction in FRACTIONS
                for name in ("AR only", "AR + extended text", "InfoNCE")
            ),
            ("alignment, 10 %", "alignment, 100 %", "answers"),
            ("AR only, 10 %", "AR only, 100 %", "answers"),
            ("alignment, 10 %", "AR only, 100 %", "answers"),
            *(
                (first, second, measure)
                for measure in ("image_retrieval", "retrieval", "plain_matching")
                for first, second in (
                    ("alignment, 10 %", "InfoNCE, 10 %"),
                    ("alignment, 100 %", "InfoNCE, 100 %"),
                    ("alignment, 10 %", "alignment, 100 %"),
                    ("InfoNCE, 10 %", "InfoNCE, 100 %"),
                )
            ),
        ),
    ),
}


def write_study(study: str, results: StudyResults, folder: Path, cost: str = "") -> None:
    """Writes `STUDY.md` and `STUDY.png` of the arms that are done."""
    done = {label: runs for label, runs in results.items() if runs}
    if not done:
        return
    text = _TEXTS[study]
    DRAWERS[study](done, folder / f"{study}.png")
    some = next(iter(next(iter(done.values())).values()))
    seeds = sorted({len(runs) for runs in done.values()})
    known = some["sizes"].get("pretraining")
    before = _BEFORE.format(organs=" and ".join(known["organs"]), steps=known["steps"]) if known else ""
    batch = some["sizes"]["batch_size"]
    reading = _READING.format(batch=batch, chance=100 / batch, seeds=" or ".join(map(str, seeds)), before=before)
    parts = [
        f"# {text.title}",
        _wrapped(text.question),
        _wrapped(reading),
        "## What was found",
        _findings(text, done),
        f"![{text.title}]({study}.png)",
        "## Means",
        _means(done) + _guessing(done),
        "## Differences",
        _differences(text, done),
        "## Cost",
        _wrapped(_cost(done) + cost),
    ]
    write_text(folder / f"{study}.md", "\n\n".join(parts) + "\n")


def _means(results: StudyResults) -> str:
    measured = [name for name in _COLUMNS if any(estimate(runs, name) is not None for runs in results.values())]
    rows = []
    for label, runs in results.items():
        rows.append([label, *(_plus_minus(estimate(runs, name)) for name in measured)])
    return table(["arm", *(_COLUMNS[name] for name in measured)], rows).replace("| ---: |", "| --- |", 1)


def _guessing(results: StudyResults) -> str:
    found = estimate(next(iter(results.values())), "guessing")
    said = "Answers of the most frequent kind, given without a look at the picture, score {}."
    return "" if found is None else "\n\n" + said.format(_plus_minus(found))


def _differences(text: StudyText, results: StudyResults) -> str:
    rows = []
    for first, second in text.pairs:
        if first in results and second in results:
            found = [difference(results[first], results[second], measure) for measure in text.measures]
            rows.append([f"{first} − {second}", *map(_between, found)])
    head = ["first − second", *(_COLUMNS[name] for name in text.measures)]
    return "In percentage points, paired by seed, with 95 % intervals; bold where the interval excludes 0.\n\n" + table(
        head, rows
    ).replace("| ---: |", "| --- |", 1)


def _findings(text: StudyText, results: StudyResults) -> str:
    lines = []
    for first, second, measure in text.keys:
        found = difference(results.get(first, {}), results.get(second, {}), measure)
        means = [estimate(results.get(label, {}), measure) for label in (first, second)]
        if found is None or None in means:
            continue
        verdict = "**not separated**" if not found.excludes_zero else "higher" if found.mean > 0 else "lower"
        shares = [
            f"*{label}* {100 * mean.mean:.1f} %" for label, mean in zip((first, second), means, strict=True) if mean
        ]
        lines.append(
            f"- {_COLUMNS[measure].capitalize()}: {', '.join(shares)}; {verdict}, {_between(found).strip('*')}."
        )
    counts, total, separated = [], 0, 0
    for measure in text.measures:
        pairs = [difference(results.get(first, {}), results.get(second, {}), measure) for first, second in text.pairs]
        known = [found for found in pairs if found is not None]
        apart = sum(found.excludes_zero for found in known)
        counts.append(f"{_COLUMNS[measure]} {apart} of {len(known)}")
        total, separated = total + len(known), separated + apart
    return (
        "\n".join(lines)
        + "\n\n"
        + _wrapped(
            f"Of the {total} differences below, {separated} have an interval that excludes 0 ({', '.join(counts)}); "
            f"about {0.05 * total:.0f} would have by chance if nothing differed. *Not separated* does not mean equal: "
            "so few seeds of so small a model cannot tell. Nothing here says what a large model would do."
        )
    )


def _cost(results: StudyResults) -> str:
    seconds = {label: _mean(each["cpu_seconds"] for each in runs.values()) for label, runs in results.items()}
    cheap, dear = min(seconds, key=seconds.__getitem__), max(seconds, key=seconds.__getitem__)
    runs = [each for arm in results.values() for each in arm.values()]
    device = "" if runs[0]["device"] == "cpu" else " (the GPU's time not counted)"
    typical = _mean(each["cpu_seconds"] for each in runs)
    return (
        f"An arm of a seed takes {typical:.1f} CPU seconds{device} in one thread, from {seconds[cheap]:.1f} ({cheap}) "
        f"to {seconds[dear]:.1f} ({dear}); this page has {len(runs)}."
    )


def total_cost(entries: Iterable[Mapping[str, Any]], workers: int) -> str:
    """Says what all arms of a size took together, stage 1 included."""
    arms = list(entries)
    shared = {each["seed"]: each["shared_cpu_seconds"] for each in arms}
    cpu = sum(each["cpu_seconds"] for each in arms) + sum(shared.values())
    wall = sum(each["wall_seconds"] for each in arms)
    return (
        f" Pages share arms: all together have {len(arms)}, which took {cpu / 60:.0f} CPU minutes with data and stage "
        f"1 of {len(shared)} seeds: {cpu / 60 / workers:.0f} minutes for {workers} workers that have a core each. On "
        f"the machine of this run, which may have had other work to do, an arm took {wall / len(arms):.0f} seconds "
        f"of wall time, {wall / 60 / workers:.0f} minutes in all. Command: `python -m benchmarks.studies`."
    )


def _wrapped(text: str) -> str:
    # No line ends within an equation, or between a number and its unit.
    return textwrap.fill(re.sub(" (?=[%=])|(?<==) ", "\N{NO-BREAK SPACE}", text), 116).replace(
        "\N{NO-BREAK SPACE}", " "
    )


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def _plus_minus(found: Interval | None) -> str:
    if found is None:
        return MISSING
    half = f" ± {100 * (found.high - found.mean):.1f}" if found.count > 1 else ""
    return f"{100 * found.mean:.1f}{half} %"


def _between(found: Interval | None) -> str:
    if found is None:
        return MISSING
    if found.count < 2:
        return f"{100 * found.mean:+.1f}"
    text = f"{100 * found.mean:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
    return f"**{text}**" if found.excludes_zero else text
