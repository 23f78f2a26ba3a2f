"""Several graphs and the universe that their nodes stand for."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphmatch import _check
from graphmatch.graphs import Graph
from graphmatch.multigraph import MultiGraphResult
from graphmatch.viz.layout import Places, check_places, layout_graph, unit_square
from graphmatch.viz.theme import Theme, figure_of, gap_text, head, plain_axes, theme_of

_WHERE = "draw_universe"
_MOST_GRAPHS = 12  # of more, no graph is drawn, only the table
_MOST_NODES = 40  # per graph, likewise
_MOST_LABELS = 400  # stations in the table with numbers in them
_COLUMNS = 4
_NEARLY_COMPLETE = 0.9


def draw_universe(
    result: MultiGraphResult,
    graphs: Sequence[Graph] | None = None,
    *,
    title: str | None = None,
    theme: str | Theme = "light",
) -> Any:
    """Draws the universe of several matched graphs: the graphs, and which of their nodes are one and the same.

    Nodes of one element have one colour and one letter in all graphs. Below stands the table of elements (columns) and
    graphs (rows): the node that stands for the element, joined by lines; gaps are graphs that lack it. Of more than 12
    graphs, or graphs of more than 40 nodes, only the table is drawn.

    Args:
        result: Of `gm.solve_multigraph`.
        graphs: The graphs, where their nodes (n, 2) are places. None, or no places: nodes of one element lie in one
            place, which the edges of all graphs together determine.
        title: None = cost, gap and size of the universe.
        theme: "light", "dark" or a `Theme`.

    Returns:
        The figure of matplotlib: show it, or write it with `save_figure`.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError, ValueError: If result and graphs do not go together.

    Example:
        >>> import torch, graphmatch as gm
        >>> from graphmatch import viz
        >>> points = torch.tensor([[0.0, 1], [1, 0], [3, 3], [2, 1]])
        >>> graphs = [gm.knn_graph(points[order], k=2) for order in ([0, 1, 2, 3], [2, 1, 0], [1, 3, 2])]
        >>> result = gm.solve_multigraph(gm.MultiGraphProblem.from_graphs(graphs, unmatched_cost=0.0))
        >>> figure = viz.draw_universe(result, graphs)
        >>> [axes.get_title() for axes in figure.axes[:3]]
        ['graph 0', 'graph 1', 'graph 2']
    """
    style = theme_of(_WHERE, theme)
    if not isinstance(result, MultiGraphResult):
        rule, cure = "be a MultiGraphResult", "Of two graphs draw_matching shows the matching."
        raise TypeError(_check.message(_WHERE, "result", rule, _check.describe(result), cure))
    counts = result.problem.node_counts.tolist()
    labels = [row[:count] for row, count in zip(result.labels.cpu().numpy(), counts, strict=True)]
    if graphs is not None and [graph.nodes.shape[-2] for graph in graphs] != counts:
        received = [graph.nodes.shape[-2] for graph in graphs]
        rule = f"be the {len(counts)} of the problem, with {counts} nodes"
        raise ValueError(_check.message(_WHERE, "graphs", rule, received, "Check their order."))
    order = _order(labels, result.universe_size)
    shown = len(counts) <= _MOST_GRAPHS and max(counts, default=0) <= _MOST_NODES
    columns = min(len(counts), _COLUMNS)
    rows = ceil(len(counts) / columns) if shown else 0
    table_height = min(0.34 * len(counts) + 0.9, 6.0)
    figure = figure_of(_WHERE, style, 8, 1.9 * rows + table_height + 0.4)
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=[1.9] * rows + [table_height])
    if shown:
        edges = _edges(result, graphs)
        for graph, places in enumerate(_places(labels, edges, graphs, result.universe_size)):
            axes = figure.add_subplot(grid[graph // columns, graph % columns])
            _draw_graph(axes, places, edges[graph], labels[graph], style)
            plain_axes(axes, style, f"graph {graph}")
    _draw_table(figure.add_subplot(grid[rows, :]), labels, order, style)
    head(figure, style, _title(result) if title is None else title)
    return figure


def _title(result: MultiGraphResult) -> str:
    gap = result.gap
    proven = f", gap {gap_text(gap, result.objective - result.lower_bound)}" if np.isfinite(gap) else ""
    cost = f"cost {result.objective:.5g}" if np.isfinite(result.objective) else "no allowed matching"
    return f"{cost}{proven}, universe of {result.universe_size}"


def _order(labels: list[NDArray[np.int64]], size: int) -> list[int]:
    """Returns the elements, those of most graphs first."""
    counts = np.bincount(np.concatenate(labels), minlength=size) if labels else np.zeros(0, np.int64)
    return [int(element) for element in np.argsort(-counts, kind="stable")]


def _edges(result: MultiGraphResult, graphs: Sequence[Graph] | None) -> list[NDArray[np.int64]]:
    """Returns the edges of each graph, each once: those that its pair problems name."""
    if graphs is not None:
        found = [{tuple(sorted(edge)) for edge in graph.edges.cpu().tolist()} for graph in graphs]
    else:
        found = [set() for _ in result.problem.node_counts]
        for (first, second), problem in result.problem.to_pairs().items():
            for graph, edges in ((first, problem.edges1[0]), (second, problem.edges2[0])):
                found[graph] |= {tuple(sorted(edge)) for edge in edges.cpu().tolist()}
    return [np.array(sorted(edges), dtype=np.int64).reshape(-1, 2) for edges in found]


def _places(
    labels: list[NDArray[np.int64]], edges: list[NDArray[np.int64]], graphs: Sequence[Graph] | None, size: int
) -> list[Places]:
    if graphs is not None and all(graph.nodes.ndim == 2 and graph.nodes.shape[1] == 2 for graph in graphs):
        given = [np.asarray(graph.nodes.detach().cpu().double().numpy()) for graph in graphs]
        for places in given:
            check_places(_WHERE, places)
        return [unit_square(places) for places in given]
    pairs = [each[ends] for each, ends in zip(labels, edges, strict=True)]
    # Complete graphs have no shape that a layout could show: a circle keeps elements apart.
    possible = sum(len(each) * (len(each) - 1) // 2 for each in labels)
    common = np.concatenate(pairs) if sum(map(len, pairs)) < _NEARLY_COMPLETE * possible else np.zeros((0, 2))
    universe = layout_graph(size, np.asarray(common, dtype=np.int64))
    return [universe[each] for each in labels]


def _letter(element: int) -> str:
    """Returns A to Z, then AA, AB ..., so that elements and nodes cannot be mixed up."""
    text = ""
    element += 1
    while element:
        element, digit = divmod(element - 1, 26)
        text = chr(ord("A") + digit) + text
    return text


def _draw_graph(axes: Any, places: Places, edges: NDArray[np.int64], labels: NDArray[np.int64], theme: Theme) -> None:
    from matplotlib.collections import LineCollection

    axes.add_collection(LineCollection(list(places[edges]), colors=theme.faint, linewidths=1.2, zorder=1))
    colours = [theme.elements[element % len(theme.elements)] for element in labels]
    many = len(labels) > 20
    axes.scatter(*places.T, s=45 if many else 130, c=colours, zorder=2, clip_on=False).set_gid("nodes")
    if not many:
        for (x, y), element in zip(places.tolist(), labels.tolist(), strict=True):
            look = {"ha": "center", "va": "center", "fontsize": 8, "fontweight": "bold", "color": theme.page}
            axes.text(x, y, _letter(element), zorder=3, **look)
    axes.set_xlim(-0.1, 1.1)
    axes.set_ylim(-0.1, 1.1)
    axes.set_aspect("equal")


def _draw_table(axes: Any, labels: list[NDArray[np.int64]], order: list[int], theme: Theme) -> None:
    """Draws a line for each element, with a station at every graph that has it."""
    column = {element: place for place, element in enumerate(order)}
    stations = [(graph, node, int(element)) for graph, row in enumerate(labels) for node, element in enumerate(row)]
    readable = len(stations) <= _MOST_LABELS and len(order) <= _MOST_NODES
    for element in order:
        graphs = [graph for graph, _, each in stations if each == element]
        colour = theme.elements[element % len(theme.elements)]
        (line,) = axes.plot(
            [column[element]] * 2,
            [min(graphs), max(graphs)],
            color=colour,
            linewidth=2.4 if readable else 1.0,
            zorder=1,
        )
        line.set_gid(f"element{element}")
    colours = [theme.elements[element % len(theme.elements)] for _, _, element in stations]
    spots = [(column[element], graph) for graph, _, element in stations]
    size = 170 if readable else max(4.0, min(60.0, 12000.0 / max(len(stations), 1)))
    axes.scatter([x for x, _ in spots], [y for _, y in spots], s=size, c=colours, zorder=2, clip_on=False).set_gid(
        "stations"
    )
    if readable:
        for (x, y), (_, node, _) in zip(spots, stations, strict=True):
            look = {"ha": "center", "va": "center", "fontsize": 8, "fontweight": "bold", "color": theme.page}
            axes.text(x, y, str(node), zorder=3, **look)
    plain_axes(axes, theme)
    axes.set_xlim(-0.7, len(order) - 0.3)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    few = len(labels) <= 2 * _MOST_GRAPHS
    axes.set_yticks(range(len(labels)), [f"graph {graph}" for graph in range(len(labels))] if few else None)
    if not few:
        axes.set_yticks([0, len(labels) - 1], ["graph 0", f"graph {len(labels) - 1}"])
    if readable:
        axes.set_xticks(range(len(order)), [_letter(element) for element in order])
        axes.xaxis.tick_top()
    else:
        axes.set_xlabel(f"{len(order)} elements of the universe", color=theme.text, fontsize=12)
    axes.tick_params(colors=theme.text, length=0, labelsize=11)
