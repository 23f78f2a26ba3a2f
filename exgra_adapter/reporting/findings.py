"""What a reader of a training run should be told: signs of runs that look well and are not."""

from __future__ import annotations

import math

from exgra_adapter.reporting.facts import Facts, History, Settings, graph_nodes, has_graphs
from exgra_adapter.reporting.markdown import number, percent
from exgra_adapter.reporting.measures import late_mean, measure_overhead, series

_NEARLY_ALL = 0.9
_GOOD_RETRIEVAL = 0.5
_WIDE_GAP = 0.25
_MARKED_RISE = 1.1
_ENOUGH_POINTS = 8


def find_warnings(settings: Settings, history: History, facts: Facts) -> list[str]:
    """Finds what is wrong or doubtful in a run.

    Averages are those over the last quarter of the logged steps.

    Args:
        settings: The settings of the run.
        history: Its logged steps; may be empty.
        facts: Facts about it; may be empty.

    Returns:
        One Markdown sentence or two for each finding, the gravest first: what was seen, and what to do.

    Example:
        >>> find_warnings({"batch_size": 1, "alignment_weight": 1.0}, [], {"skipped": 0})[0][:30]
        'The graphs have a single node:'
    """
    found = [*_not_finite(history), *_rising_loss(history)]
    if has_graphs(settings):
        found += [*_graph_sizes(settings, facts), *_silent_or_shallow(settings, history)]
    skipped = facts.get("skipped", 0)
    if skipped:
        share = skipped / (skipped + facts.get("samples", 0))
        found.append(
            f"{number(skipped)} samples ({percent(share)}) were left out because they were bad. "
            "Look at them with `exgra-med data check`."
        )
    overhead = measure_overhead(history)
    if overhead is not None and overhead.bar is not None and not overhead.within_bar:
        found.append(
            f"The alignment adds {percent(overhead.relative)} to a step, more than its tokens explain "
            f"({percent(overhead.bar)} with the allowance). Look at the split of the time below."
        )
    return found


def _not_finite(history: History) -> list[str]:
    for key in ("loss", "ar_loss", "alignment_loss", "gradient_norm"):
        steps, values = series(history, key)
        bad = [step for step, value in zip(steps, values, strict=True) if not math.isfinite(value)]
        if bad:
            return [
                f"`{key}` is not finite in {len(bad)} of {len(values)} logged steps, first at step {number(bad[0])}. "
                "Lower the learning rate, or train in bf16 or fp32 instead of fp16."
            ]
    return []


def _rising_loss(history: History) -> list[str]:
    values = series(history, "ar_loss")[1]
    values = values[[math.isfinite(value) for value in values]]
    if len(values) < _ENOUGH_POINTS:
        return []
    quarter = len(values) // 4
    first, last = float(values[:quarter].mean()), float(values[-quarter:].mean())
    if last <= _MARKED_RISE * first:
        return []
    return [
        f"The autoregressive loss rose, from {number(first)} in the first quarter to {number(last)} in the last. "
        "Lower the learning rate or the alignment's weight."
    ]


def _graph_sizes(settings: Settings, facts: Facts) -> list[str]:
    nodes, neighbours = graph_nodes(settings, facts), settings.get("neighbours")
    if nodes == 1:
        return ["The graphs have a single node: nothing can be matched wrongly, and the alignment teaches nothing. "
                "Use a larger `batch_size`, or `graph_scope: global` on several devices."]  # fmt: skip
    if nodes is not None and isinstance(neighbours, int) and neighbours >= nodes - 1:
        return [
            f"`neighbours` is {neighbours} and the graphs have {nodes} nodes: every node has all others as neighbours, "
            f"so the edges say nothing. Use at most {max(1, nodes // 3)} neighbours, or larger batches."
        ]
    return []


def _silent_or_shallow(settings: Settings, history: History) -> list[str]:
    found = []
    matching, retrieval = late_mean(history, "matching_accuracy"), late_mean(history, "retrieval")
    silent = late_mean(history, "zero_gradient_share")
    if history and late_mean(history, "alignment_loss") is None:
        found.append("The alignment is on, but no alignment loss was logged: check that the texts reach the model.")
    if silent is not None and silent >= _NEARLY_ALL and (retrieval is None or retrieval < _GOOD_RETRIEVAL):
        found.append(
            f"The alignment is silent: {percent(silent)} of the steps sent no gradient, while cross-view retrieval "
            f"is at {percent(retrieval)}. Use a noisy estimator (`gradient: imle`), larger batches, or "
            "`barycenter: leave_one_out`."
        )
    if matching is not None and retrieval is not None and matching - retrieval >= _WIDE_GAP:
        cause = "Train longer or with larger batches before trusting the matching."
        if settings.get("barycenter") == "mean":
            cause = (
                "With `barycenter: mean` each view is matched with an average that contains it, and matches almost for "
                "free. Use `barycenter: leave_one_out`."
            )
        found.append(
            f"The matching with the barycenter looks better ({percent(matching)}) than the views agree: cross-view "
            f"retrieval is at {percent(retrieval)}. {cause}"
        )
    if settings.get("reuse_answer_states"):
        found.append(
            "`reuse_answer_states` takes the answers' states from a pass that has seen the image: matching and "
            "retrieval are then not comparable with runs that encode the answers alone."
        )
    return found
