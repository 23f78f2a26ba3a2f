"""What the figures of the multi-graph study mean: exponents, break-even points, and answers in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from graphmatch.studies.multigraph import (
    ALL_PAIRS,
    BARYCENTER,
    BEST,
    CHEAPEST,
    GRAPH,
    METHODS,
    SAME_SOLVER,
    STAR,
    SYNCHRONIZE,
    Row,
    StudyResult,
)

# Times of `Costs` in words.
_PARTS = {
    "arms": "the quadratic problems of a star",
    "pairs": "those of all pairs with the same solver",
    "seconds": "building the costs of all pairs, which every method is given",
}
# Extrapolation beyond would be idle.
_FARTHEST = 1000
# Differences of objectives that are rounding.
_EQUAL = 1e-9


@dataclass(frozen=True)
class Fit:
    """A power law y = factor * x^exponent.

    Attributes:
        exponent: By least squares of the logarithms.
        standard_error: Of the exponent; None from two points.
        factor: At x = 1.
        sizes: The x that it was fitted to.
    """

    exponent: float
    standard_error: float | None
    factor: float
    sizes: tuple[int, ...]


def fit(sizes: Sequence[int], values: Sequence[float]) -> Fit | None:
    """Returns the power law of the larger sizes: the upper half, but at least three if there are as many.

    At small sizes the time is that of the calls, not of the work. None = fewer than two sizes.

    Example:
        >>> from graphmatch.studies.multigraph_scaling import fit
        >>> fit((2, 4, 8), (5.0, 20.0, 80.0)).exponent
        2.0
    """
    used = max((len(sizes) + 1) // 2, min(len(sizes), 3))
    if used < 2:
        return None
    x = [math.log(size) for size in sizes[-used:]]
    y = [math.log(max(value, 1e-9)) for value in values[-used:]]
    mean_x, mean_y = math.fsum(x) / used, math.fsum(y) / used
    spread = math.fsum((each - mean_x) ** 2 for each in x)
    slope = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
    rest = math.fsum((b - mean_y - slope * (a - mean_x)) ** 2 for a, b in zip(x, y, strict=True))
    error = math.sqrt(rest / (used - 2) / spread) if used > 2 else None
    return Fit(round(slope, 12), error, math.exp(mean_y - slope * mean_x), tuple(sizes[-used:]))


def line(result: StudyResult, method: str, axis: str) -> list[Row]:
    """Returns the rows of a method along an axis, "graphs" at the usual number of nodes or "nodes" the other way."""
    study = result.study
    if axis == "graphs":
        rows = [row for row in result.rows if row.method == method and row.nodes == study.usual_nodes]
        return sorted(rows, key=lambda row: row.graphs)
    rows = [row for row in result.rows if row.method == method and row.graphs == study.usual_graphs]
    return sorted(rows, key=lambda row: row.nodes)


def exponent(result: StudyResult, method: str, axis: str) -> Fit | None:
    """Returns the power law of the median time of a method along an axis."""
    rows = line(result, method, axis)
    return fit([getattr(row, axis) for row in rows], [median(row.seconds) for row in rows])


def costs_exponent(result: StudyResult, axis: str, part: str = "seconds") -> Fit | None:
    """Returns the power law of a time in `Costs`: building the costs, or solving the pairs alone."""
    study = result.study
    fixed, usual = ("nodes", study.usual_nodes) if axis == "graphs" else ("graphs", study.usual_graphs)
    costs = [each for each in result.costs if getattr(each, fixed) == usual]
    costs.sort(key=lambda each: (each.graphs, each.nodes))
    return fit([getattr(each, axis) for each in costs], [median(getattr(each, part)) for each in costs])


def break_even(result: StudyResult, method: str, other: str) -> int | None:
    """Returns the least m from which on a method took less time than the other, at all measured m; None = no such."""
    found = None
    for mine, theirs in reversed(list(zip(line(result, method, "graphs"), line(result, other, "graphs"), strict=True))):
        if _ratio(mine.seconds, theirs.seconds) >= 1:
            break
        found = mine.graphs
    return found


def crossing(mine: Fit | None, theirs: Fit | None) -> float | None:
    """Returns where the first of two power laws falls below the second for good; None = nowhere."""
    if mine is None or theirs is None or not mine.exponent < theirs.exponent:
        return None
    log = math.log(mine.factor / theirs.factor) / (theirs.exponent - mine.exponent)
    return math.exp(log) if log < 50 else None


def undominated(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows that no other beats in time and objective, the fastest first."""
    kept: list[Row] = []
    for row in sorted(rows, key=lambda each: (median(each.seconds), median(each.excess))):
        if all(median(row.excess) < median(each.excess) - _EQUAL for each in kept):
            kept.append(row)
    return kept


def answers(result: StudyResult) -> list[str]:
    """Returns the answers of the study, a paragraph each, from its figures."""
    if not result.rows:
        return ["No size was measured."]
    parts = [
        _short(result),
        _growth(result),
        _barycenter_time(result),
        _barycenter_objective(result),
        _rounds(result),
        _front(result),
        _barycenter_graph(result),
    ]
    return [part for part in parts if part]


def _short(result: StudyResult) -> str:
    """Returns whether a star, or the barycenter, is cheaper than all pairs, and what that costs in objective."""
    stars = {name: line(result, name, "graphs") for name in (CHEAPEST, BARYCENTER)}
    if not stars[CHEAPEST]:
        return ""
    graphs = [row.graphs for row in stars[CHEAPEST]]
    text = f"In short, against {SAME_SOLVER} (n = {result.study.usual_nodes}, m = {_numbers(graphs)}):"
    parts = []
    for name, rows in stars.items():
        others = line(result, SAME_SOLVER, "graphs")
        ratios = [_ratio(mine.seconds, theirs.seconds) for mine, theirs in zip(rows, others, strict=True)]
        changes = [_change(mine, theirs) for mine, theirs in zip(rows, others, strict=True)]
        first = break_even(result, name, SAME_SOLVER)
        when = "is not cheaper at the largest m" if first is None else f"is cheaper from m = {first} on"
        parts.append(
            f" {name} {when} ({_extent(ratios)} times the time) and changes the objective by "
            f"{_signed(changes[-1])} at m = {graphs[-1]} ({_signed(min(changes))} to {_signed(max(changes))})"
        )
    return text + ";".join(parts) + ". Positive changes are for the worse."


def _extent(values: Sequence[float]) -> str:
    return f"{min(values):.3g} to {max(values):.3g}"


def _growth(result: StudyResult) -> str:
    study, text = result.study, ""
    for axis, symbol, fixed in (
        ("graphs", "m", f"n = {study.usual_nodes}"),
        ("nodes", "n", f"m = {study.usual_graphs}"),
    ):
        fits = {name: exponent(result, name, axis) for name in METHODS}
        known = {name: each for name, each in fits.items() if each is not None}
        if not known:
            continue
        sizes = next(iter(known.values())).sizes
        powers = ", ".join(f"{each.exponent:.1f} {name}" for name, each in known.items())
        text += f" Exponents of the time in {symbol} ({fixed}, {symbol} = {sizes[0]} to {sizes[-1]}): {powers}."
        parts = ", ".join(
            f"{each.exponent:.1f} {words}"
            for part, words in _PARTS.items()
            if (each := costs_exponent(result, axis, part)) is not None
        )
        text += f" Of their parts: {parts}."
    return "Growth. A star solves m - 1 quadratic problems, all pairs are m (m - 1) / 2." + text + _share(result)


def _share(result: StudyResult) -> str:
    """Returns how much of the time of a star its quadratic problems are, at the most graphs."""
    rows = line(result, STAR, "graphs")
    if not rows:
        return ""
    (costs,) = (each for each in result.costs if (each.graphs, each.nodes) == (rows[-1].graphs, rows[-1].nodes))
    size = f"m = {rows[-1].graphs}, n = {rows[-1].nodes}"
    share = min(_ratio(costs.arms, rows[-1].seconds), 1.0)
    times = _ratio(costs.pairs, costs.arms)
    return (
        f" At {size} the quadratic problems of the star are {100 * share:.0f} % of the time of {STAR}; the rest "
        f"prices the answer on all pairs. The problems of all pairs, {rows[-1].graphs / 2:g} times as many, take "
        f"{times:.3g} times as long."
    )


def _barycenter_time(result: StudyResult) -> str:
    rows = line(result, BARYCENTER, "graphs")
    if not rows:
        return ""
    measured = _numbers([row.graphs for row in rows])
    nodes = result.study.usual_nodes
    text = f"Time of the barycenter (n = {nodes}, measured at m = {measured})."
    for other in (ALL_PAIRS, SAME_SOLVER, BEST):
        first = break_even(result, BARYCENTER, other)
        ratio = _ratio(rows[-1].seconds, line(result, other, "graphs")[-1].seconds)
        at = f"at m = {rows[-1].graphs} it takes {ratio:.3g} times as long"
        if first == rows[0].graphs:
            text += f" It is faster than {other} at every m; {at}."
        elif first is not None:
            text += f" It is faster than {other} from m = {first} on; {at}."
        else:
            fits = exponent(result, BARYCENTER, "graphs"), exponent(result, other, "graphs")
            text += f" It is not faster than {other} at the largest m: {at}; {_crossing_words(*fits)}."
    return text


def _crossing_words(mine: Fit | None, theirs: Fit | None) -> str:
    if mine is None or theirs is None:
        return "one size allows no extrapolation"
    # Two standard errors; two points have none.
    error = 2 * math.hypot(mine.standard_error or 0.0, theirs.standard_error or 0.0)
    if abs(mine.exponent - theirs.exponent) <= error:
        return "the exponents are too close, for their errors, to say where it would be"
    where = crossing(mine, theirs)
    if where is None or where > _FARTHEST:
        return f"the fits do not cross below m = {_FARTHEST}"
    return f"extrapolated, the fits cross at m = {where:.0f}"


def _barycenter_objective(result: StudyResult) -> str:
    rows = line(result, BARYCENTER, "graphs")
    if not rows:
        return ""
    text = "What it costs in objective (median, n = " + f"{result.study.usual_nodes}):"
    parts = []
    for other in (ALL_PAIRS, SYNCHRONIZE, BEST):
        changes = [_change(mine, theirs) for mine, theirs in zip(rows, line(result, other, "graphs"), strict=True)]
        last = f"{_signed(changes[-1])} at m = {rows[-1].graphs}"
        if len(rows) > 1:
            last += f" ({_signed(min(changes))} to {_signed(max(changes))} over all m)"
        parts.append(f" against {other} {last}")
    text += ";".join(parts) + "."
    for large in _larger(result):
        others = [(name, _same_size(result, name, large)) for name in (ALL_PAIRS, BEST)]
        found = ", ".join(
            f"{_signed(_change(large, row))} against {name} in {_ratio(large.seconds, row.seconds):.3g} times its time"
            for name, row in others
        )
        text += f" At n = {large.nodes}, m = {large.graphs}: {found}."
    return text + " Negative: the barycenter is better."


def _rounds(result: StudyResult) -> str:
    rows = line(result, BARYCENTER, "graphs")
    if not rows:
        return ""
    row = rows[-1]
    text = f"The rounds of the barycenter, at m = {row.graphs}, n = {row.nodes}:"
    parts = []
    for name in (STAR, CHEAPEST):
        plain = _same_size(result, name, row)
        gain = median(row.accuracy) - median(plain.accuracy)
        parts.append(
            f" {_ratio(row.seconds, plain.seconds):.2g} times the time of {name}, "
            f"objective {_signed(_change(row, plain))}, accuracy {100 * gain:+.1f} points"
        )
    return text + ";".join(parts) + "."


def _front(result: StudyResult) -> str:
    sizes = sorted({(row.graphs, row.nodes) for row in result.rows})
    beaten = dict.fromkeys(METHODS, 0)
    for size in sizes:
        rows = [row for row in result.rows if (row.graphs, row.nodes) == size]
        front = {row.method for row in undominated(rows)}
        for name in METHODS:
            beaten[name] += name not in front
    counts = ", ".join(f"{name} {len(sizes) - count}" for name, count in beaten.items())
    text = f"Not beaten in both time and objective, of {len(sizes)} sizes: {counts}."
    chosen = max(sizes, key=lambda size: (size[0] * size[1], size))
    rows = [row for row in result.rows if (row.graphs, row.nodes) == chosen]
    kept = ", ".join(
        f"{row.method} ({median(row.seconds):.3g} s, excess {100 * median(row.excess):.2g} %)"
        for row in undominated(rows)
    )
    return text + f" At the largest, m = {chosen[0]}, n = {chosen[1]}: {kept}."


def _barycenter_graph(result: StudyResult) -> str:
    """Returns from how many graphs on a barycenter graph is cheaper than all pairs, with the costs that each needs."""
    rows, others = (line(result, name, "graphs") for name in (GRAPH, ALL_PAIRS))
    if not rows:
        return ""
    ratios = [_ratio(mine.seconds, _with_costs(result, row)) for mine, row in zip(rows, others, strict=True)]
    slower = [place for place, ratio in enumerate(ratios) if ratio >= 1]
    if slower and slower[-1] == len(rows) - 1:
        when = "not cheaper at the largest m"
    else:
        when = f"cheaper from m = {rows[slower[-1] + 1 if slower else 0].graphs} on"
    changes = [_change(mine, theirs) for mine, theirs in zip(rows, others, strict=True)]
    text = (
        f"The {GRAPH}: m problems at a time, whatever the number of pairs. With the costs that each needs (n = "
        f"{result.study.usual_nodes}) it is {when} than {ALL_PAIRS}, {ratios[-1]:.3g} times the time at m = "
        f"{rows[-1].graphs} ({_extent(ratios)} over all m), and changes the objective by {_signed(changes[-1])} "
        f"({_signed(min(changes))} to {_signed(max(changes))})."
    )
    for large in _larger(result):
        mine, theirs = (_same_size(result, name, large) for name in (GRAPH, ALL_PAIRS))
        ratio = _ratio(mine.seconds, _with_costs(result, theirs))
        size = f"n = {large.nodes}, m = {large.graphs}"
        text += f" At {size}: {ratio:.3g} times the time, objective {_signed(_change(mine, theirs))}."
    return text


def _with_costs(result: StudyResult, row: Row) -> list[float]:
    """Returns the seconds of a method and of building the costs of all pairs."""
    size = row.graphs, row.nodes
    (costs,) = (each for each in result.costs if (each.graphs, each.nodes) == size)
    return [own + given for own, given in zip(row.seconds, costs.seconds, strict=True)]


def _larger(result: StudyResult) -> list[Row]:
    """Returns the rows of the barycenter with the most nodes, where that is more than the usual number."""
    most = max(row.nodes for row in result.rows)
    rows = [row for row in result.rows if row.method == BARYCENTER and row.nodes == most]
    return sorted(rows, key=lambda row: row.graphs) if most > result.study.usual_nodes else []


def _same_size(result: StudyResult, method: str, row: Row) -> Row:
    wanted = method, row.graphs, row.nodes
    return next(each for each in result.rows if (each.method, each.graphs, each.nodes) == wanted)


def _paired(function: Callable[[float, float], float], mine: Sequence[float], theirs: Sequence[float]) -> float:
    """Returns the median over the problems: both methods had the same ones."""
    return median(function(a, b) for a, b in zip(mine, theirs, strict=True))


def _ratio(mine: Sequence[float], theirs: Sequence[float]) -> float:
    return _paired(lambda a, b: a / max(b, 1e-9), mine, theirs)


def _change(mine: Row, theirs: Row) -> float:
    return _paired(lambda a, b: 0.0 if a == b else (a - b) / max(abs(b), 1e-300), mine.objective, theirs.objective)


def _signed(share: float) -> str:
    return "0 %" if abs(share) < _EQUAL else f"{100 * share:+.2g} %"


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))
