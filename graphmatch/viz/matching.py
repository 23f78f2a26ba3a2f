"""Two graphs side by side, their matching between them, and what it pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphmatch import _check
from graphmatch.graphs import Graph
from graphmatch.problem import Problem
from graphmatch.result import MatchResult
from graphmatch.viz.images import image_array
from graphmatch.viz.layout import Places
from graphmatch.viz.paid import BROKEN, OPEN, PAID, EdgeCosts, PaidCosts, assignment_of, paid_costs, partners, target_of
from graphmatch.viz.places import bounding_box, image_columns, places_of
from graphmatch.viz.theme import Theme, cost_colours, figure_of, gap_text, plain_axes, theme_of

_WHERE = "draw_matching"
_WIDTH, _HEIGHT = 8.0, 7.0  # inches, of the graphs at most
_MOST_NODES = 200  # of more, nothing is drawn but what is matched, in thin lines
_MOST_LABELS = 40
_MOST_EDGES = 1500  # per graph
RIGHT, WRONG, MATCHED, ALONE = "right", "wrong", "matched", "unmatched"


@dataclass(frozen=True)
class _Look:
    """Sizes in points, smaller for larger graphs."""

    node: float
    rim: float
    paid: float
    match: float
    alpha: float

    @classmethod
    def of(cls, nodes: int) -> _Look:
        if nodes > _MOST_NODES:
            return cls(node=6, rim=0.8, paid=0.8, match=0.6, alpha=0.15)
        if nodes > _MOST_LABELS:
            return cls(node=36, rim=0.9, paid=1.5, match=1.0, alpha=0.45)
        return cls(node=150, rim=1.8, paid=2.8, match=1.6, alpha=0.6)


def draw_matching(
    matching: Any,
    graphs: Sequence[Graph] | None = None,
    *,
    problem: Problem | None = None,
    target: Any = None,
    images: Sequence[Any] | None = None,
    place: int = 0,
    title: str | None = None,
    theme: str | Theme = "light",
    axes: Any = None,
) -> Any:
    """Draws two graphs side by side with their matching and what it pays.

    Edges with a counterpart have the colour of the cost that the matching pays for them; edges whose nodes are matched
    with nodes that share no edge are faint and dashed, those with an unmatched node faint and dotted. With a target
    matches are right (solid) or wrong (dashed), without one they have the colour of what the node pays: its assignment
    and half of its edges. Unmatched nodes are hollow; with a target their rim says whether that is right.

    Of graphs with more than 200 nodes only what is matched is drawn, and of more than 1500 edges those that pay most.

    Args:
        matching: A `MatchResult`, or the node of graph 2 for each node of graph 1, (n1,), -1 = unmatched.
        graphs: Both graphs; nodes (n, 2) are places (x to the right, y up), or pixels (y down) where there are images.
            Nodes of other lengths have no place. None, or no places: graph 1 is laid out by its edges, and nodes of
            graph 2 lie where their partners do, unmatched ones below.
        problem: What was solved, where `matching` is no result; None = edges are kept or not, and cost nothing.
        target: True partners (n1,), -1 = none, or a 0/1 matrix (n1, n2).
        images: The image under each graph: arrays or tensors (h, w), (h, w, 3 or 4) or (3 or 4, h, w), images of Pillow
            or file names. They need graphs with places.
        place: Which problem of a batch.
        title: None = cost and gap of a result.
        theme: "light", "dark" or a `Theme`.
        axes: Axes of matplotlib to draw into; None = a figure of its own.

    Returns:
        The figure of matplotlib: show it, or write it with `save_figure`.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError, ValueError: If the arguments do not go together; the message says which and what to do.

    Example:
        >>> import torch, graphmatch as gm
        >>> from graphmatch import viz
        >>> left = gm.Graph(torch.tensor([[0.0, 0], [1, 0], [0, 1]]), torch.tensor([[0, 1], [1, 2]]))
        >>> figure = viz.draw_matching([0, 1, 2], (left, left), target=[0, 2, 1], theme="dark")
        >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ['1 right', '2 wrong']
    """
    style = theme_of(_WHERE, theme)
    assignment, known = assignment_of(_WHERE, matching, place)
    graphs = None if graphs is None else _two(graphs, "graphs")
    paid = paid_costs(_WHERE, assignment, known if problem is None else problem, graphs, place)
    truth = target_of(_WHERE, target, paid.nodes)
    pictures = None if images is None else [image_array(_WHERE, image) for image in _two(images, "images")]
    places = places_of(_WHERE, paid, graphs, pictures)
    box = bounding_box(places, pictures)
    title = _title(matching, place) if title is None else title
    has_costs = paid.node_costs is not None
    new = _framed(style, box, bool(title), has_costs) if axes is None else (figure_of(_WHERE, style, 0, 0, axes), axes)
    figure, axes = new
    axes.set_xlim(box[0][0], box[1][0])
    axes.set_ylim(box[0][1], box[1][1])
    axes.set_aspect("equal")
    plain_axes(axes, style, title)
    drawing = _Drawing(axes, style, paid, truth, places, _Look.of(max(paid.nodes)), pictures is not None)
    drawing.images(pictures)
    drawing.edges()
    drawing.matches()
    drawing.nodes()
    drawing.legend()
    return figure


def _two(values: Sequence[Any], name: str) -> Sequence[Any]:
    if len(values) != 2:
        rule = "be two, one for each graph"
        raise ValueError(_check.message(_WHERE, name, rule, len(values), f"Pass {name}=(first, second)."))
    return values


def _title(matching: Any, place: int) -> str | None:
    if not isinstance(matching, MatchResult):
        return None
    objective, gap = float(matching.objective[place]), float(matching.gap[place])
    status = matching.statuses[place].name
    if not np.isfinite(objective):
        return status
    if not np.isfinite(gap):
        return f"cost {objective:.5g}"
    return f"cost {objective:.5g}, gap {gap_text(gap, float(matching.absolute_gap[place]))}, {status}"


def _framed(theme: Theme, box: tuple[Places, Places], has_title: bool, has_costs: bool) -> tuple[Any, Any]:
    """Returns a figure and axes of the shape of a box, with room for a title, scales of colours and a legend."""
    width, height = box[1] - box[0]
    inches = min(_WIDTH, _HEIGHT * width / height)
    low, high = 1.0 if has_costs else 0.55, 0.45 if has_title else 0.1
    total = inches * height / width + low + high
    figure = figure_of(_WHERE, theme, _WIDTH, total)
    figure.set_layout_engine("none")
    axes = figure.add_axes(((1 - inches / _WIDTH) / 2, low / total, inches / _WIDTH, 1 - (low + high) / total))
    return figure, axes


class _Drawing:
    """Draws one matching into axes."""

    def __init__(
        self,
        axes: Any,
        theme: Theme,
        paid: PaidCosts,
        truth: NDArray[np.int64] | None,
        places: tuple[Places, Places],
        look: _Look,
        on_images: bool,
    ) -> None:
        self.axes, self.theme, self.paid, self.truth, self.places, self.look = axes, theme, paid, truth, places, look
        self.halo = self._halo() if on_images else None
        edges = [each.costs[each.select(PAID)] for each in paid.edges]
        self.edge_costs = np.concatenate(edges)
        self.partner = partners(paid.assignment, paid.nodes[1])
        # Of the axes' height, for what lies below them.
        self.inch = axes.get_figure().dpi / max(axes.get_window_extent().height, 1.0)

    def _halo(self) -> list[Any]:
        from matplotlib.patheffects import withStroke

        return [withStroke(linewidth=self.look.paid + 2.2, foreground=self.theme.page, alpha=0.75)]

    def images(self, pictures: list[NDArray[Any]] | None) -> None:
        """Draws the images, each in a box of height 1."""
        for picture, (left, width) in zip(pictures or [], image_columns(pictures or []), strict=True):
            extent = (left, left + width, 0.0, 1.0)
            self.axes.imshow(picture, extent=extent, cmap="gray", zorder=0, aspect="equal", origin="upper")

    def edges(self) -> None:
        """Draws the edges of both graphs."""
        colours = cost_colours(self.theme, self.edge_costs)
        has_costs = self.paid.node_costs is not None
        faint = {BROKEN: (0, (4, 2)), OPEN: (0, (1, 2))}
        for side, (edges, places) in enumerate(zip(self.paid.edges, self.places, strict=True), start=1):
            if max(self.paid.nodes) <= _MOST_NODES:
                for state, dashes in faint.items():
                    chosen = _at_most(edges, edges.select(state))
                    look = {"colors": self.theme.faint, "linewidths": 1.2, "linestyles": [dashes]}
                    self._lines(places[edges.ends[chosen]], f"edges{side}-{state}", 1, **look)
            chosen = _at_most(edges, edges.select(PAID))
            colour = colours.to_rgba(edges.costs[chosen]) if has_costs else self.theme.text
            look = {"colors": colour, "linewidths": self.look.paid}
            self._lines(places[edges.ends[chosen]], f"edges{side}-{PAID}", 3, **look)
        if has_costs and len(self.edge_costs):
            self._bar(colours, "cost of an edge", 0.56)

    def matches(self) -> None:
        """Draws a line between every two partners."""
        assignment, (left, right) = self.paid.assignment, self.places
        matched = (assignment >= 0).nonzero()[0]
        lines = np.stack([left[matched], right[assignment[matched]]], axis=1) if len(matched) else np.zeros((0, 2, 2))
        if self.truth is not None:
            is_right = assignment[matched] == self.truth[matched]
            look = {"colors": self.theme.right, "alpha": self.look.alpha, "linewidths": self.look.match}
            self._lines(lines[is_right], f"matches-{RIGHT}", 1, **look)
            look = {"colors": self.theme.wrong, "alpha": 0.9, "linewidths": max(self.look.match, 1.2)}
            self._lines(lines[~is_right], f"matches-{WRONG}", 2, linestyles=[(0, (3, 1.6))], **look)
            return
        colour = self.theme.right
        if self.paid.node_costs is not None:
            colours = cost_colours(self.theme, self.paid.node_costs[matched])
            colour = colours.to_rgba(self.paid.node_costs[matched])
            if len(matched):
                self._bar(colours, "cost of a node", 0.0)
        look = {"colors": colour, "alpha": self.look.alpha, "linewidths": self.look.match}
        self._lines(lines, f"matches-{MATCHED}", 1, **look)

    def nodes(self) -> None:
        """Draws the nodes of both graphs, numbered where there is room."""
        truth2 = None if self.truth is None else partners(self.truth, self.paid.nodes[1])
        sides = ((self.paid.assignment, self.truth), (self.partner, truth2))
        for side, ((partner, truth), places) in enumerate(zip(sides, self.places, strict=True)):
            fill, rim = self._node_colours(partner, truth, side)
            look = {"s": self.look.node, "facecolors": fill, "edgecolors": rim, "linewidths": self.look.rim}
            points = self.axes.scatter(places[:, 0], places[:, 1], zorder=4, clip_on=False, **look)
            points.set_gid(f"nodes{side + 1}")
            if max(self.paid.nodes) <= _MOST_LABELS:
                for node, (x, y) in enumerate(places.tolist()):
                    colour = self.theme.page if partner[node] >= 0 else self.theme.text
                    look = {"ha": "center", "va": "center", "fontsize": 8, "fontweight": "bold"}
                    self.axes.text(x, y, str(node), color=colour, zorder=5, **look)

    def _node_colours(
        self, partner: NDArray[np.int64], truth: NDArray[np.int64] | None, side: int
    ) -> tuple[list[Any], list[Any]]:
        matched = partner >= 0
        if truth is not None:
            rim: list[Any] = [self.theme.right if each else self.theme.wrong for each in partner == truth]
        elif self.paid.node_costs is not None:
            costs = self.paid.node_costs
            colours = cost_colours(self.theme, costs[self.paid.assignment >= 0])
            shown = costs if side == 0 else (costs[partner] if len(costs) else np.zeros(len(partner)))
            rim = [tuple(each) for each in colours.to_rgba(shown)]
            rim = [colour if each else self.theme.faint for colour, each in zip(rim, matched, strict=True)]
        else:
            rim = [self.theme.right if each else self.theme.faint for each in matched]
        return [colour if each else self.theme.page for colour, each in zip(rim, matched, strict=True)], rim

    def legend(self) -> None:
        """Says how many nodes of graph 1 are matched, and how."""
        from matplotlib.lines import Line2D

        assignment = self.paid.assignment
        if self.truth is None:
            entries = {MATCHED: (int((assignment >= 0).sum()), self.theme.text, "-")}
        else:
            is_right = (assignment == self.truth) & (assignment >= 0)
            entries = {
                RIGHT: (int(is_right.sum()), self.theme.right, "-"),
                WRONG: (int(((assignment >= 0) & ~is_right).sum()), self.theme.wrong, "--"),
            }
        entries[ALONE] = (int((assignment < 0).sum()), self.theme.faint, "")
        handles = []
        for name, (count, colour, dashes) in entries.items():
            if count:
                fill = self.theme.page if name == ALONE else colour
                look = {"marker": "o", "markersize": 9, "markerfacecolor": fill, "markeredgecolor": colour}
                handles.append(
                    Line2D([], [], color=colour, linestyle=dashes, linewidth=2.2, label=f"{count} {name}", **look)
                )
        legend = self.axes.legend(
            handles=handles,
            loc="upper center",
            bbox_to_anchor=(0.5, -(0.45 if self.axes.child_axes else 0.05) * self.inch),
            ncols=3,
            frameon=False,
            fontsize=13,
            labelcolor=self.theme.text,
        )
        legend.set_zorder(6)

    def _lines(self, ends: NDArray[np.float64], name: str, zorder: int, **look: Any) -> None:
        from matplotlib.collections import LineCollection

        lines = LineCollection(list(ends), zorder=zorder, capstyle="butt", path_effects=self.halo, **look)
        lines.set_gid(name)
        self.axes.add_collection(lines)

    def _bar(self, colours: Any, name: str, left: float) -> None:
        """Draws the scale of colours as a small bar below."""
        bar = self.axes.inset_axes((left + 0.04, -0.2 * self.inch, 0.36, 0.14 * self.inch))
        low, high = colours.norm.vmin, colours.norm.vmax
        bar.imshow(np.linspace(0, 1, 256)[None], aspect="auto", cmap=colours.cmap, extent=(0, 1, 0, 1))
        ends = {0: f"{low:.3g}", 1: f"{high:.3g}"} if high > low else {0: f"{low:.3g}"}
        bar.set_xticks(list(ends), list(ends.values()), color=self.theme.text, fontsize=11)
        bar.set_yticks([])
        bar.tick_params(length=0)
        bar.set_xlabel(name, color=self.theme.text, fontsize=12, labelpad=-9)
        for spine in bar.spines.values():
            spine.set_visible(False)


def _at_most(edges: EdgeCosts, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the edges that pay most where there are too many to be seen."""
    if len(chosen) <= _MOST_EDGES:
        return chosen
    order = np.argsort(-np.abs(edges.costs[chosen]), kind="stable")
    return np.sort(chosen[order[:_MOST_EDGES]])
