"""Objective and dual bound over time: recorded by solving with growing budgets, and drawn."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

from graphmatch import _check
from graphmatch.problem import Problem
from graphmatch.solve import default_solver, solve
from graphmatch.solvers import Solver, WarmStartSolver
from graphmatch.viz.theme import Theme, curve_axes, figure_of, gap_text, legend, suggestion, theme_of

_RECORD, _DRAW = "record_convergence", "draw_convergence"
# The first that a solver has is grown.
_BUDGETS: dict[str, tuple[float, ...]] = {
    "effort": (0.01, 0.03, 0.1, 0.3, 1, 3),
    "max_iterations": (1, 2, 5, 10, 20, 50, 100, 200),
    "time_limit": (0.003, 0.01, 0.03, 0.1, 0.3, 1),
}
Axis = Literal["seconds", "iterations", "budget"]


@dataclass(frozen=True)
class Convergence:
    """How objective and lower bound of one problem came closer, the best so far after each budget.

    Attributes:
        name: Of the solver.
        option: The option of the solver that grew.
        budgets: Its values.
        seconds: Wall-clock time until then, of solving alone. With warm starts that of all calls so far, else that of
            the call with this budget.
        iterations: Iterations of the solver, counted in the same way.
        objective: The lowest so far; inf = none found.
        lower_bound: The highest so far; -inf = none proven.
        warm: Whether each call went on where the last one stopped.
    """

    name: str
    option: str
    budgets: tuple[float, ...]
    seconds: tuple[float, ...]
    iterations: tuple[int, ...]
    objective: tuple[float, ...]
    lower_bound: tuple[float, ...]
    warm: bool

    @property
    def gap(self) -> float:
        """The relative gap in the end; NaN where no matching was found."""
        if not abs(self.objective[-1]) < float("inf"):
            return float("nan")
        difference = self.objective[-1] - self.lower_bound[-1]
        return difference / max(abs(self.objective[-1]), 1e-300) if difference > 0 else 0.0


def record_convergence(
    problem: Problem,
    solver: Solver | None = None,
    budgets: Sequence[float] | None = None,
    *,
    option: str | None = None,
    place: int = 0,
    warm: bool = True,
) -> Convergence:
    """Solves with growing budgets and records objective, bound and time after each.

    A solver that takes a state goes on where it stopped, with the difference of two budgets; that is not always what
    one call with the whole budget would have done. Others, and all with `warm=False`, begin anew with every budget, and
    the time is that of each call. The machine's other work is in the times.

    Args:
        problem: A batch of problems; all are solved, so give one that holds just one where time matters.
        solver: None takes what `gm.solve` takes.
        budgets: Growing values of the option; None takes six to eight, from hasty to thorough.
        option: The option of the solver that grows; None takes effort, max_iterations or time_limit, the first it has.
        place: Which problem of the batch is recorded.
        warm: Go on from the state of the last call where the solver can.

    Raises:
        TypeError: If the solver has no such option.
        ValueError: If the budgets do not grow.

    Example:
        >>> import torch, graphmatch as gm
        >>> from graphmatch import viz
        >>> torch.manual_seed(0)
        <...>
        >>> edges = torch.randint(12, (2, 40, 2))
        >>> problem = gm.LawlerProblem(-torch.rand(1, 12, 12), -torch.rand(1, 40, 40), *edges)
        >>> record = viz.record_convergence(problem, gm.DualAscent(), budgets=[1, 10, 100])
        >>> record.warm, record.lower_bound[0] < record.lower_bound[-1] <= record.objective[-1]
        (True, True)
    """
    solver = default_solver(problem) if solver is None else solver
    name = _grown(solver, option)
    values = tuple(_BUDGETS[name] if budgets is None else budgets)
    growing = all(first < second for first, second in pairwise(values))
    if not values or values[0] <= 0 or not growing:
        rule, cure = "be positive and grow", "For instance [1, 10, 100]."
        raise ValueError(_check.message(_RECORD, "budgets", rule, list(values), cure))
    _check.option(
        _RECORD, "place", place, 0 <= place < problem.batch_size, "be a problem of the batch", "Count from 0."
    )
    goes_on = warm and isinstance(solver, WarmStartSolver)
    if goes_on and "keep_state" in _options(solver):
        solver = dataclasses.replace(solver, keep_state=True)  # type: ignore[type-var]
    state, spent, steps, last = None, 0.0, 0, 0.0
    best, bound = float("inf"), float("-inf")
    rows: list[tuple[float, int, float, float]] = []
    for value in values:
        amount = value - last if goes_on else value
        # Iterations are whole, whatever the budgets were given as.
        step = dataclasses.replace(solver, **{name: max(round(amount), 1) if name == "max_iterations" else amount})  # type: ignore[type-var]
        start = time.perf_counter()
        result = solve(problem, step, state)
        elapsed, taken = time.perf_counter() - start, int(result.iterations[place])
        spent, steps = (spent + elapsed, steps + taken) if goes_on else (elapsed, taken)
        best, bound = min(best, float(result.objective[place])), max(bound, float(result.lower_bound[place]))
        rows.append((spent, steps, best, bound))
        state, last = result.state if goes_on else None, value
        goes_on = state is not None  # dense problems have none
    seconds, iterations, objective, lower_bound = zip(*rows, strict=True)
    label = type(solver).__name__
    return Convergence(label, name, values, seconds, iterations, objective, lower_bound, goes_on)


def _options(solver: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(solver)]


def _grown(solver: Any, option: str | None) -> str:
    """Returns the option that is to grow."""
    if not dataclasses.is_dataclass(solver):
        rule, cure = "be a solver of graphmatch, or a dataclass like them", "Its fields are its options."
        raise TypeError(_check.message(_RECORD, "solver", rule, _check.describe(solver), cure))
    known = _options(solver)
    if option is None:
        option = next((name for name in _BUDGETS if name in known), "")
    if option not in known:
        rule = f"be an option of {type(solver).__name__}"
        received, cure = (repr(option), suggestion(option, known)) if option else ("none", "It has no budget to grow.")
        raise TypeError(_check.message(_RECORD, "option", rule, received, cure))
    if option not in _BUDGETS:
        rule = f"be one of {', '.join(_BUDGETS)}"
        raise ValueError(_check.message(_RECORD, "option", rule, repr(option), suggestion(option, tuple(_BUDGETS))))
    return option


def draw_convergence(
    records: Convergence | Sequence[Convergence],
    *,
    best_known: float | None = None,
    over: Axis = "seconds",
    title: str | None = None,
    theme: str | Theme = "light",
    axes: Any = None,
) -> Any:
    """Draws objective and lower bound of one or several solvers: the gap is the shaded area between them.

    Args:
        records: Of `record_convergence`; up to seven on the same problem.
        best_known: A line at this objective.
        over: "seconds", "iterations" or "budget", on a logarithmic axis.
        title: None = the final gaps.
        theme: "light", "dark" or a `Theme`.
        axes: Axes of matplotlib to draw into; None = a figure of its own.

    Returns:
        The figure of matplotlib: show it, or write it with `save_figure`.

    Example:
        >>> from graphmatch import viz
        >>> record = viz.Convergence("Tabu", "time_limit", (0.1, 1), (0.1, 1), (5, 9), (-4, -5), (-9, -6), False)
        >>> viz.draw_convergence(record, over="iterations").axes[0].get_xlabel()
        'iterations'
    """
    style = theme_of(_DRAW, theme)
    records = [records] if isinstance(records, Convergence) else list(records)
    if not records or not all(isinstance(record, Convergence) for record in records):
        rule, cure = "be one or several records of record_convergence", "Record some."
        raise TypeError(_check.message(_DRAW, "records", rule, _check.describe(records), cure))
    if len(records) > len(style.elements):
        rule, cure = f"be at most {len(style.elements)}, a colour each", "Draw several pictures."
        raise ValueError(_check.message(_DRAW, "records", rule, len(records), cure))
    if over not in get_args(Axis):
        rule = f"be {', '.join(map(repr, get_args(Axis)))}"
        raise ValueError(_check.message(_DRAW, "over", rule, repr(over), suggestion(over, get_args(Axis))))
    figure = figure_of(_DRAW, style, 8, 4.6, axes)
    axes = figure.add_subplot() if axes is None else axes
    for record, colour in zip(records, style.elements, strict=False):
        _draw_record(axes, record, over, colour if len(records) > 1 else None, style)
    if best_known is not None:
        axes.axhline(best_known, color=style.third, linestyle=(0, (1, 1.5)), linewidth=2.2, label="best known")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    options = {record.option for record in records}
    axes.set_xlabel(f"{', '.join(sorted(options))}" if over == "budget" else over)
    axes.set_ylabel("cost")
    text = ", ".join(f"{each.name}: {_found(each)} after {each.seconds[-1]:.2g} s" for each in records[:2])
    curve_axes(axes, style, text if title is None else title)
    legend(axes, frameon=False, fontsize=12, labelcolor=style.text, loc="best")
    return figure


def _found(record: Convergence) -> str:
    return (
        "no matching"
        if math.isnan(record.gap)
        else f"gap {gap_text(record.gap, record.objective[-1] - record.lower_bound[-1])}"
    )


def _draw_record(axes: Any, record: Convergence, over: Axis, colour: str | None, theme: Theme) -> None:
    places = {"seconds": record.seconds, "iterations": record.iterations, "budget": record.budgets}[over]
    # Iterations may be 0, which a logarithm has no place for.
    places = tuple(max(place, 0.5 if over == "iterations" else 1e-6) for place in places)
    finite = [abs(value) < float("inf") for value in record.lower_bound]
    bound = [value if known else float("nan") for value, known in zip(record.lower_bound, finite, strict=True)]
    found = [value if abs(value) < float("inf") else float("nan") for value in record.objective]
    prefix = "" if colour is None else f"{record.name}: "
    shade = theme.faint if colour is None else colour
    axes.fill_between(places, bound, found, color=shade, alpha=0.25 if colour is None else 0.12, linewidth=0)
    look: dict[str, Any] = {"linewidth": 2.6, "markersize": 7}
    axes.plot(places, found, color=colour or theme.wrong, marker="o", label=f"{prefix}objective", **look)
    look |= {"linestyle": "-" if colour is None else "--"}
    axes.plot(places, bound, color=colour or theme.right, marker="s", label=f"{prefix}lower bound", **look)
