"""The text of the overhead study."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.studies.overhead_figures import Price, over_samples, over_widths, prices
from benchmarks.studies.points import described, percent
from benchmarks.tables import MISSING

_MEGABYTE = 1e6


def markdown(result: dict[str, Any], picture: str) -> str:
    """Returns the report."""
    every = prices(result)
    rounds = [each.rounds for each in every]
    load = max(each.load for each in every)
    warning = "" if load <= result["settings"]["threads"] + 1 else ", more than the threads in use: times are too long"
    lines = [
        "# What the alignment costs",
        "",
        "A step of stage 2 (forward, backward, optimizer) of tiny LLaVA models on drawn pictures with the default",
        "`barycenter` objective, beside the same step with the autoregressive loss alone; steps in turns, medians of",
        f"{min(rounds)} to {max(rounds)} rounds. The alignment reads answers and extended answers in a text pass of",
        "its own, builds graphs and costs, and solves. Its parts are timed inside the step, forward and backward",
        "apart; shares are those of a step without alignment. *Extra tokens*: of the text pass, per token of the main",
        "pass: what reading the texts must cost. *InfoNCE*: the same text pass, and a contrastive loss in place of",
        "graphs and solver. *Memory*: growth of a fresh process to its peak: model, gradients, optimizer, batches,",
        "activations.",
        "",
        f"![time and memory over samples and width]({picture})",
        "",
        "## What was found",
        "",
        *(f"- {each}" for each in _findings(result)),
        "",
        "## Time",
        "",
        *_table(_TIME, (_time_cells(each) for each in every)),
        "",
        "*rest*: what the parts do not explain: more parameters for the optimizer, hooks, chance.",
        "",
        "## Memory",
        "",
        *_table(_MEMORY, (_memory_cells(each) for each in every)),
        "",
        f"Measured with: {described(result)} Largest load of the machine: {load:g}{warning}.",
    ]
    return "\n".join(lines) + "\n"


def _findings(result: dict[str, Any]) -> Iterator[str]:
    by_samples, by_width = over_samples(result), over_widths(result)
    samples, size = result["settings"]["centre"]
    centre = next(each for each in by_samples if each.samples == samples and each.size == size)
    yield (
        f"**At {samples} samples and width {centre.width}** the alignment adds {percent(centre.overhead[1])} to a step "
        f"of {_milliseconds(centre.alone)} (quartiles {percent(centre.overhead[0])} to {percent(centre.overhead[2])}): "
        f"the text pass {percent(centre.text)}, graphs {percent(centre.graph)}, solving {percent(centre.solve)}. The "
        f"texts are {percent(centre.extra_tokens)} more tokens. InfoNCE on the same texts adds "
        f"{percent(centre.contrast[1])}."
    )
    if len(by_samples) > 1:
        yield f"**Over the number of samples**, width {centre.width}: {_trend(by_samples, 'samples')}."
    if len(by_width) > 1:
        yield f"**Over the width**, {samples} samples: {_trend(by_width, 'width')}."
    every = prices(result)
    dearest = max(every, key=lambda each: each.graph + each.solve)
    text = [each.text / sum(each.parts.values()) for each in every]
    yield (
        f"**Graphs and solver together** add at most {percent(dearest.graph + dearest.solve)} (at {dearest.samples} "
        f"samples, width {dearest.width}); reading the texts is {percent(min(text))} to {percent(max(text))} of what "
        "all parts add."
    )
    known = [each for each in every if each.memory is not None]
    if known:
        extra = [(each, each.extra_memory or 0.0) for each in known]
        (low, least), (high, most) = min(extra, key=lambda pair: pair[1]), max(extra, key=lambda pair: pair[1])
        yield (
            f"**Peak memory** grows by {percent(least)} (at {low.samples} samples, width {low.width}) to "
            f"{percent(most)} (at {high.samples} samples, width {high.width})."
        )


def _trend(found: list[Price], name: str) -> str:
    first, last = found[0], found[-1]
    names = {"overhead": lambda each: each.overhead[1], "text": lambda each: each.text,
             "graphs": lambda each: each.graph, "solving": lambda each: each.solve}  # fmt: skip
    texts = [f"{label} {percent(value(first))} to {percent(value(last))}" for label, value in names.items()]
    return f"from {getattr(first, name)} to {getattr(last, name)} {', '.join(texts)}"


_TIME = ["samples", "width", "parameters", "step alone", "overhead", "quartiles", "text, forward", "backward",
         "graphs, forward", "backward", "solving, forward", "backward", "rest", "InfoNCE", "extra tokens"]  # fmt: skip
_MEMORY = ["samples", "width", "alone, MB", "with alignment, MB", "added, MB", "added"]


def _time_cells(each: Price) -> list[str]:
    return [
        str(each.samples),
        str(each.width),
        f"{each.parameters / 1e6:.1f} M",
        _milliseconds(each.alone),
        percent(each.overhead[1]),
        f"{percent(each.overhead[0])} to {percent(each.overhead[2])}",
        *(percent(share) for share in each.parts.values()),
        percent(each.rest),
        percent(each.contrast[1]),
        percent(each.extra_tokens),
    ]


def _memory_cells(each: Price) -> list[str]:
    if each.memory is None:
        return [str(each.samples), str(each.width), *[MISSING] * 4]
    alone, aligned = each.memory
    sizes = [f"{value / _MEGABYTE:.0f}" for value in (alone, aligned, aligned - alone)]
    return [str(each.samples), str(each.width), *sizes, percent(each.extra_memory)]


def _table(header: list[str], rows: Iterator[list[str]]) -> list[str]:
    lines = [header, ["---:"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"
