"""Costs as matrices, with the matching in them; dense problems before and after the permutation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graphmatch import _check
from graphmatch.problem import KoopmansBeckmannProblem, LawlerProblem, LinearProblem
from graphmatch.result import MatchResult
from graphmatch.viz.paid import assignment_of, target_of
from graphmatch.viz.theme import Theme, figure_of, head, plain_axes, theme_of

_WHERE = "draw_costs"
_MOST_FRAMES = 60  # rows or columns; of more, chosen cells are dots
Matrix = NDArray[np.float64]


def draw_costs(
    costs: Any,
    matching: Any = None,
    *,
    target: Any = None,
    place: int = 0,
    title: str | None = None,
    theme: str | Theme = "light",
) -> Any:
    """Draws costs as a matrix with the matching framed in it, and the matching beside it.

    With a target the matching is right (full), wrong (crossed) and missed (hollow). Of a Koopmans-Beckmann problem the
    picture shows flows, distances as given, distances permuted by the matching, and what is paid, the product of flows
    and permuted distances.

    Args:
        costs: A `MatchResult`, a problem, or a matrix (n1, n2); +inf, a forbidden assignment, is left blank. Of a
            `LawlerProblem` the unary costs are drawn.
        matching: The node of graph 2 for each node of graph 1, (n1,), -1 = unmatched; None takes that of the result.
        target: True partners (n1,), -1 = none, or a 0/1 matrix (n1, n2).
        place: Which problem of a batch.
        title: Of the whole figure.
        theme: "light", "dark" or a `Theme`.

    Returns:
        The figure of matplotlib: show it, or write it with `save_figure`.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError, ValueError: If the arguments do not go together; the message says which and what to do.

    Example:
        >>> import torch, graphmatch as gm
        >>> from graphmatch import viz
        >>> result = gm.solve(gm.LinearProblem(torch.tensor([[[4.0, 1.0], [2.0, 3.0]]])))
        >>> [axes.get_title() for axes in viz.draw_costs(result).axes]
        ['costs: 3 paid', 'matching']
    """
    style = theme_of(_WHERE, theme)
    if isinstance(costs, MatchResult):
        matching = costs if matching is None else matching
        costs = costs.problem
    if matching is None:
        rule, cure = "be given", "Pass a MatchResult, or costs and a matching."
        raise TypeError(_check.message(_WHERE, "matching", rule, "none", cure))
    assignment, _ = assignment_of(_WHERE, matching, place)
    if isinstance(costs, KoopmansBeckmannProblem):
        if target is not None:
            rule, cure = "be left out for a Koopmans-Beckmann problem", "Draw the permutation with draw_costs(matrix)."
            raise ValueError(_check.message(_WHERE, "target", rule, "one", cure))
        return _draw_dense(costs, assignment, place, title, style)
    matrix = _matrix(costs, place)
    _check_assignment(assignment, *matrix.shape)
    truth = target_of(_WHERE, target, (matrix.shape[0], matrix.shape[1]))
    figure = figure_of(_WHERE, style, 8, 4.4)
    left, right = figure.subplots(1, 2)
    rows = (assignment >= 0).nonzero()[0]
    paid = float(matrix[rows, assignment[rows]].sum())
    image = _show(left, matrix, style)
    _mark(left, rows, assignment[rows], matrix.shape, style.wrong, "framed", "paid")
    _draw_matching_matrix(right, assignment, truth, matrix.shape, style)
    plain_axes(left, style, f"costs: {paid:.5g} paid")
    plain_axes(right, style, "matching")
    for axes in (left, right):
        _frame(axes, matrix.shape, style)
    _scale(figure, image, left, style)
    head(figure, style, title)
    return figure


def _matrix(costs: Any, place: int) -> Matrix:
    if isinstance(costs, LawlerProblem | LinearProblem):
        batch = costs.batch_size
        rule = f"be a problem of the batch, in [0, {batch})"
        _check.option(_WHERE, "place", place, 0 <= place < batch, rule, "Count from 0.")
        n1, n2 = (int(counts[place]) for counts in costs.node_counts())
        costs = (costs.unary_costs if isinstance(costs, LawlerProblem) else costs.costs)[place, :n1, :n2]
    matrix = torch.as_tensor(costs).detach().cpu().double().numpy()
    if matrix.ndim != 2:
        rule, cure = "be a matrix (n1, n2), a problem or a MatchResult", "One of a batch is costs[0]."
        raise ValueError(_check.message(_WHERE, "costs", rule, f"one of shape {matrix.shape}", cure))
    return np.asarray(matrix)


def _check_assignment(assignment: NDArray[np.int64], rows: int, columns: int) -> None:
    inside = not len(assignment) or -1 <= assignment.min() <= assignment.max() < columns
    if len(assignment) != rows or not inside:
        rule, cure = f"hold {rows} nodes in [0, {columns}), or -1", "Check the order of the graphs."
        raise ValueError(_check.message(_WHERE, "matching", rule, assignment.tolist(), cure))


def _draw_dense(
    problem: KoopmansBeckmannProblem, assignment: NDArray[np.int64], place: int, title: str | None, theme: Theme
) -> Any:
    rule = f"be a problem of the batch, in [0, {problem.batch_size})"
    _check.option(_WHERE, "place", place, 0 <= place < problem.batch_size, rule, "Count from 0.")
    count = int(problem.node_counts()[0][place])
    flow, distance = (
        each[place, :count, :count].detach().cpu().double().numpy() for each in (problem.flow, problem.distance)
    )
    _check_assignment(assignment, count, count)
    if (np.sort(assignment) != np.arange(count)).any():
        rule, cure = f"be a permutation of {count} nodes", "Such problems leave no node unmatched."
        raise ValueError(_check.message(_WHERE, "matching", rule, assignment.tolist(), cure))
    permuted = distance[np.ix_(assignment, assignment)]
    paid = flow * permuted
    linear = 0.0
    if problem.linear is not None:
        linear = float(problem.linear[place, range(count), assignment.tolist()].double().sum())
    before, after = float((flow * distance).sum()), float(paid.sum())
    figure = figure_of(_WHERE, theme, 8, 8.4)
    panels = figure.subplots(2, 2).flatten()
    names = (
        "flow",
        f"distance, as given: cost {before:.6g}",
        f"distance, permuted: cost {after:.6g}",
        "flow x permuted distance",
    )
    for axes, matrix, name in zip(panels, (flow, distance, permuted, paid), names, strict=True):
        image = _show(axes, matrix, theme)
        plain_axes(axes, theme, name)
        _frame(axes, matrix.shape, theme)
        _scale(figure, image, axes, theme)
    extra = f" and {linear:.6g} of linear costs" if problem.linear is not None else ""
    head(figure, theme, f"cost {after + linear:.8g}{extra}" if title is None else title)
    return figure


def _show(axes: Any, matrix: Matrix, theme: Theme) -> Any:
    import matplotlib as mpl

    colours = mpl.colormaps[theme.matrices].with_extremes(bad=theme.page)
    shown = np.where(np.isfinite(matrix), matrix, np.nan)
    if shown.size == 0:
        return axes.imshow(np.zeros((1, 1)), cmap=colours, visible=False)
    smoothing = "nearest" if max(shown.shape) <= 400 else "antialiased"
    return axes.imshow(shown, cmap=colours, interpolation=smoothing, origin="upper", aspect="equal")


def _frame(axes: Any, shape: tuple[int, ...], theme: Theme) -> None:
    """Shows how large a matrix is."""
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(theme.faint)
    axes.set_xlabel(f"{shape[1]} columns", color=theme.text, fontsize=12)
    axes.set_ylabel(f"{shape[0]} rows", color=theme.text, fontsize=12)


def _mark(
    axes: Any,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    shape: tuple[int, ...],
    colour: str,
    kind: str,
    name: str,
) -> None:
    """Marks cells: framed or filled, large enough to be seen."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    if max(shape) > _MOST_FRAMES:
        look = {"marker": "s", "s": 7, "linewidths": 0.7, "edgecolors": colour}
        marks = axes.scatter(columns, rows, facecolors="none" if kind == "hollow" else colour, zorder=3, **look)
    else:
        boxes = [Rectangle((column - 0.45, row - 0.45), 0.9, 0.9) for row, column in zip(rows, columns, strict=True)]
        look = {"facecolor": colour if kind == "filled" else "none", "edgecolor": colour}
        marks = PatchCollection(boxes, linewidth=2.2 if kind == "framed" else 1.6, zorder=3, **look)
        axes.add_collection(marks)
    marks.set_gid(name)


def _draw_matching_matrix(
    axes: Any,
    assignment: NDArray[np.int64],
    truth: NDArray[np.int64] | None,
    shape: tuple[int, ...],
    theme: Theme,
) -> None:
    axes.set_xlim(-0.5, max(shape[1], 1) - 0.5)
    axes.set_ylim(max(shape[0], 1) - 0.5, -0.5)
    axes.set_aspect("equal")
    matched = assignment >= 0
    if truth is None:
        rows = matched.nonzero()[0]
        _mark(axes, rows, assignment[rows], shape, theme.right, "filled", "matched")
        return
    missed = ((truth >= 0) & (truth != assignment)).nonzero()[0]
    _mark(axes, missed, truth[missed], shape, theme.faint, "hollow", "missed")
    handles = {}
    for name, chosen, colour in (
        ("right", matched & (assignment == truth), theme.right),
        ("wrong", matched & (assignment != truth), theme.wrong),
    ):
        rows = chosen.nonzero()[0]
        _mark(axes, rows, assignment[rows], shape, colour, "filled", name)
        handles[name] = (len(rows), colour)
    if max(shape) <= _MOST_FRAMES:
        crossed = (matched & (assignment != truth)).nonzero()[0]
        look = {"marker": "x", "color": theme.page, "linewidths": 1.5, "zorder": 4}
        axes.scatter(assignment[crossed], crossed, s=(190.0 / max(shape)) ** 2, **look)
    _legend(axes, handles, len(missed), theme)


def _legend(axes: Any, handles: dict[str, tuple[int, str]], missed: int, theme: Theme) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(facecolor=colour, label=f"{count} {name}") for name, (count, colour) in handles.items() if count]
    if missed:
        patches.append(Patch(facecolor="none", edgecolor=theme.faint, linewidth=1.6, label=f"{missed} missed"))
    look = {"frameon": False, "fontsize": 12, "labelcolor": theme.text, "handlelength": 1.0, "columnspacing": 1.2}
    axes.legend(handles=patches, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, **look)


def _scale(figure: Any, image: Any, axes: Any, theme: Theme) -> None:
    from matplotlib.ticker import MaxNLocator

    # Beside the matrix and as high, which axes that colorbar makes are not where the matrix is wide.
    bar = figure.colorbar(image, cax=axes.inset_axes((1.03, 0.0, 0.04, 1.0)), ticks=MaxNLocator(4))
    bar.ax.tick_params(colors=theme.text, labelsize=11, length=0)
    bar.outline.set_visible(False)
