"""What the history of a run says: averages, the split of time, and the price of the alignment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from exgra_adapter.reporting.facts import History

TIME_PREFIX = "seconds_"
NORM_PREFIX = "gradient_norm_"
ALIGNMENT_PHASES = ("text", "graph", "solve")
"""The phases that a step without alignment does not have."""
_PHASES = {
    "data": "loading data",
    "forward": "main pass",
    "text": "text pass",
    "graph": "graphs",
    "solve": "solving",
    "backward": "backward pass",
    "optimizer": "optimizer",
    "other": "other",
}
_ALLOWANCE = 0.05


@dataclass(frozen=True)
class Overhead:
    """The price of the alignment in a training step.

    The backward pass is one: its share for the alignment is taken to be that of the forward pass, text pass and graph
    building against all forward work. The solver differentiates nothing, so it has no part in it.

    Attributes:
        text: Share of the step spent in the language model's extra pass over the texts, forward.
        graph: Share of the step spent on building graphs and costs.
        solve: Share of the step spent in the solver.
        backward: Share of the step for the alignment's part of the backward pass, estimated as above.
        extra_tokens: `tokens_text / tokens_main`, or None where no tokens were counted.
        relative: The alignment's time divided by the time of the rest of the step.
        bar: The largest `relative` wanted: the share of extra tokens plus 0.05, or None.
    """

    text: float
    graph: float
    solve: float
    backward: float
    extra_tokens: float | None
    relative: float
    bar: float | None

    @property
    def together(self) -> float:
        """Share of the step that the alignment takes."""
        return self.text + self.graph + self.solve + self.backward

    @property
    def within_bar(self) -> bool | None:
        """Whether the alignment costs no more than its tokens allow; None where no tokens were counted."""
        return None if self.bar is None else self.relative <= self.bar


def phase_name(phase: str) -> str:
    """Names a phase of a step for readers.

    Example:
        >>> phase_name("forward"), phase_name("graph_edges")
        ('main pass', 'graph edges')
    """
    return _PHASES.get(phase, phase.replace("_", " "))


def series(history: History, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Collects the steps at which a quantity was logged, and its values (float64; NaN and infinity stay)."""
    points = [(entry.get("step", index), entry[key]) for index, entry in enumerate(history) if _is_number(entry, key)]
    both = np.array(points, dtype=np.float64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def smooth(values: np.ndarray) -> np.ndarray:
    """Averages over a centred window of about a twentieth of the points; NaN is left out of every window.

    Example:
        >>> smooth(np.array([1.0, 3.0])).tolist()
        [1.0, 3.0]
    """
    half = len(values) // 40
    if not half:
        return values
    finite = np.isfinite(values)
    padded = np.pad(np.where(finite, values, 0.0), half)
    window = np.ones(2 * half + 1)
    count = np.convolve(np.pad(finite.astype(np.float64), half), window, "valid")
    with np.errstate(invalid="ignore"):
        return np.asarray(np.convolve(padded, window, "valid") / np.where(count > 0, count, np.nan))


def late_mean(history: History, key: str) -> float | None:
    """Averages a quantity over the last quarter of the points where it was logged and finite.

    Example:
        >>> late_mean([{"loss": 4.0}, {"loss": 3.0}, {"loss": 2.0}, {"loss": 1.0}], "loss")
        1.0
    """
    values = series(history, key)[1]
    values = values[np.isfinite(values)]
    return float(values[-max(1, len(values) // 4) :].mean()) if len(values) else None


def keys_with_prefix(history: History, prefix: str) -> list[str]:
    """Lists the logged keys that begin with `prefix` and go on, phases in their order in a step, others sorted."""
    found = {key for entry in history for key in entry if key.startswith(prefix) and key != prefix}
    order = {f"{prefix}{phase}": place for place, phase in enumerate(_PHASES)}
    return sorted((key for key in found if len(series(history, key)[0])), key=lambda key: (order.get(key, 99), key))


def time_split(history: History) -> dict[str, float]:
    """Averages the seconds of an optimizer step by phase.

    A logged entry stands for the steps since the one before it, and counts as often. A phase that an entry lacks took
    no time in it; entries without any phase are left out.

    Returns:
        Seconds by phase, in the order of a step; empty where none were logged.

    Example:
        >>> time_split([{"step": 1, "seconds_forward": 1.0}, {"step": 4, "seconds_forward": 2.0}])
        {'forward': 1.75}
    """
    keys = keys_with_prefix(history, TIME_PREFIX)
    timed = [(weight, entry) for weight, entry in weighted(history) if any(_is_finite(entry, key) for key in keys)]
    steps = sum(weight for weight, _ in timed)
    return {
        key.removeprefix(TIME_PREFIX): sum(w * entry[key] for w, entry in timed if _is_finite(entry, key)) / steps
        for key in keys
        if steps
    }


def weighted(history: History) -> list[tuple[float, dict[str, float]]]:
    """Pairs every logged entry with the number of optimizer steps that it stands for, at least 1."""
    pairs, before = [], 0.0
    for index, entry in enumerate(history):
        step = float(entry.get("step", index + 1))
        pairs.append((max(1.0, step - before), dict(entry)))
        before = step
    return pairs


def measure_overhead(history: History) -> Overhead | None:
    """Measures what the alignment adds to a training step.

    Args:
        history: The logged steps, with `seconds_*` and, for the bar, `tokens_main` and `tokens_text`.

    Returns:
        The overhead, or None where no step was timed or none of it belongs to an alignment.

    Example:
        >>> overhead = measure_overhead([{"step": 1, "seconds_forward": 3.0, "seconds_text": 1.0,
        ...                               "seconds_backward": 4.0, "tokens_main": 300.0, "tokens_text": 100.0}])
        >>> round(overhead.together, 6), round(overhead.relative, 6), overhead.within_bar
        (0.25, 0.333333, True)
    """
    split = time_split(history)
    step = sum(split.values())
    text, graph, solve = (split.get(phase, 0.0) for phase in ALIGNMENT_PHASES)
    if not step or not text + graph + solve:
        return None
    forward = split.get("forward", 0.0)
    backward = split.get("backward", 0.0) * (text + graph) / (forward + text + graph) if text + graph else 0.0
    extra = text + graph + solve + backward
    tokens = [
        sum(weight * entry[key] for weight, entry in weighted(history) if _is_finite(entry, key))
        for key in ("tokens_text", "tokens_main")
    ]
    extra_tokens = tokens[0] / tokens[1] if tokens[1] else None
    return Overhead(
        text=text / step,
        graph=graph / step,
        solve=solve / step,
        backward=backward / step,
        extra_tokens=extra_tokens,
        relative=extra / (step - extra) if step > extra else math.inf,
        bar=None if extra_tokens is None else extra_tokens + _ALLOWANCE,
    )


def format_overhead(overhead: Overhead) -> str:
    """Says in two sentences what the alignment costs and whether that is within its bar."""
    parts = (
        f"The alignment takes {100 * overhead.together:.1f} % of a step (text pass {100 * overhead.text:.1f} %, graph "
        f"building {100 * overhead.graph:.1f} %, solving {100 * overhead.solve:.1f} %, its part of the backward pass "
        f"about {100 * overhead.backward:.1f} %): {100 * overhead.relative:.1f} % on top of a step without it."
    )
    if overhead.bar is None or overhead.extra_tokens is None:
        return f"{parts} No tokens were counted, so there is no bar to compare with."
    verdict = "within" if overhead.within_bar else "above"
    return (
        f"{parts} It processes {100 * overhead.extra_tokens:.1f} % more tokens; with 5 % allowed beyond that, the bar "
        f"is {100 * overhead.bar:.1f} %: {verdict} the bar."
    )


def _is_number(entry: Mapping[str, float], key: str) -> bool:
    value = entry.get(key)
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_finite(entry: Mapping[str, float], key: str) -> bool:
    return _is_number(entry, key) and math.isfinite(entry[key])
