"""Draws the pictures of docs/concepts.md from what the solvers answer: python docs/draw_pictures.py [FOLDER].

Every picture is written twice, for light and for dark pages (NAME.svg, NAME-dark.svg), with the same bytes every time.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

import graphmatch as gm

Axes = Any
NOISES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Style:
    """Colours of a page, told apart by colour-blind readers; Okabe and Ito's where there is a choice."""

    page: str
    text: str
    faint: str
    first: str
    second: str
    third: str
    colours: str


LIGHT = Style("#ffffff", "#202124", "#9aa0a6", "#0072b2", "#d55e00", "#009e73", "Blues")
DARK = Style("#1e2129", "#e6e6e6", "#7d828c", "#56b4e9", "#e69f00", "#2fc49a", "Blues_r")


def edge_costs(left: gm.Graph, right: gm.Graph, tolerance: float) -> Tensor:
    """Returns minus the likeness of every two edges (e1, e2): 0 where they are nothing alike, -1 where they agree."""
    ways = [graph.nodes[graph.edges[:, 0]] - graph.nodes[graph.edges[:, 1]] for graph in (left, right)]
    return -torch.exp(-((torch.cdist(*ways) / tolerance) ** 2))


def two_graphs() -> tuple[gm.Graph, gm.Graph, Tensor]:
    """Returns nine points, seven of them again with two new ones, and which belongs to which (-1 = none)."""
    generator = torch.Generator().manual_seed(11)
    points = torch.rand(9, 2, generator=generator)
    order = torch.randperm(9, generator=generator)[:7]
    again = points[order] + 0.02 * torch.randn(7, 2, generator=generator)
    strangers = torch.rand(2, 2, generator=generator)
    truth = torch.full((9,), -1)
    truth[order] = torch.arange(7)
    return gm.knn_graph(points, 3), gm.knn_graph(torch.cat([again, strangers]), 3), truth


def draw_graph(axes: Axes, graph: gm.Graph, offset: tuple[float, float], style: Style, hollow: list[int]) -> Tensor:
    """Draws nodes and edges, and returns where the nodes are."""
    places = graph.nodes + torch.tensor(offset)
    for i, j in graph.edges.tolist():
        axes.plot(*places[[i, j]].T.tolist(), color=style.faint, linewidth=1.2, zorder=1)
    filled = [node for node in range(len(places)) if node not in hollow]
    axes.scatter(*places[filled].T.tolist(), s=55, color=style.text, zorder=3)
    axes.scatter(*places[hollow].T.tolist(), s=55, facecolor=style.page, edgecolor=style.text, linewidth=1.5, zorder=3)
    return places


def matching(style: Style) -> Figure:
    """A complete matching and one that may leave nodes alone."""
    left, right, truth = two_graphs()
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.9))
    for axes, unmatched_cost in zip(panels, (None, -0.6), strict=True):
        costs = edge_costs(left, right, 0.1)[None]
        problem = gm.LawlerProblem(torch.zeros(1, 9, 9), costs, left.edges, right.edges, None, unmatched_cost)
        result = gm.solve(problem)
        found = result.assignment[0].tolist()
        alone = [node for node in range(9) if found[node] < 0], [node for node in range(9) if node not in found]
        places = [draw_graph(axes, left, (0, 0), style, alone[0]), draw_graph(axes, right, (1.6, 0), style, alone[1])]
        right_ones = 0
        for node, partner in enumerate(found):
            if partner < 0:
                continue
            correct = partner == int(truth[node])
            right_ones += correct
            ends = torch.stack([places[0][node], places[1][partner]]).T.tolist()
            look = {"color": style.first, "linestyle": "-"} if correct else {"color": style.second, "linestyle": "--"}
            axes.plot(*ends, linewidth=1.8, zorder=2, **look)
        matched = sum(partner >= 0 for partner in found)
        name = "complete matching" if unmatched_cost is None else f"unmatched_cost={unmatched_cost}"
        axes.set_title(f"{name}: {matched} matched, {right_ones} rightly\ncost {float(result.objective):.2f}")
        axes.set_axis_off()
    return figure


def structured(noise: float, seed: int) -> gm.LawlerProblem:
    """Returns a problem between 16 points and the same points, moved by noise and shuffled."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(16, 2, generator=generator)
    moved = points + noise * torch.randn(16, 2, generator=generator)
    left, right = gm.knn_graph(points, 4), gm.knn_graph(moved[torch.randperm(16, generator=generator)], 4)
    return gm.LawlerProblem(torch.zeros(1, 16, 16), edge_costs(left, right, 0.14)[None], left.edges, right.edges)


def unstructured(seed: int) -> gm.LawlerProblem:
    """Returns a problem with random edges and costs."""
    generator = torch.Generator().manual_seed(seed)
    edges = torch.randint(16, (2, 64, 2), generator=generator)
    costs = -torch.rand(1, 16, 16, generator=generator), -torch.rand(1, 64, 64, generator=generator)
    return gm.LawlerProblem(*costs, *edges)


@functools.cache
def ascents() -> dict[str, tuple[dict[int, tuple[float, float]], gm.MatchResult]]:
    """Returns for each problem the objective and the bound by iteration, and the answer of the portfolio."""
    found = {}
    for name, problem in {"with structure": structured(0.04, 0), "all random": unstructured(0)}.items():
        curve = {}
        for limit in range(1, 61):
            result = gm.solve(problem, gm.DualAscent(max_iterations=limit, max_gap=1e-6))
            curve[int(result.iterations)] = float(result.objective), float(result.lower_bound)
        found[name] = curve, gm.solve(problem, gm.Portfolio(effort=10))
    return found


def bounds(style: Style) -> Figure:
    """The lower bound of the dual ascent and the best matching, iteration by iteration."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6))
    for axes, (name, (curve, best)) in zip(panels, ascents().items(), strict=True):
        steps = sorted(curve)
        objective, bound = ([curve[step][place] for step in steps] for place in (0, 1))
        axes.fill_between(steps, bound, objective, color=style.faint, alpha=0.3, linewidth=0)
        axes.plot(steps, objective, color=style.second, marker="o", markersize=4, label="its matching")
        axes.plot(steps, bound, color=style.first, marker="s", markersize=4, label="its certified lower bound")
        axes.axhline(float(best.objective), color=style.third, linestyle="--", label="matching of Portfolio")
        gap = 100 * float(best.gap)
        axes.set_title(f"{name}: gap {gap:.0f} % ({best.statuses[0].name})")
        axes.set_xlabel("iterations of the dual ascent")
    panels[0].set_ylabel("cost")
    panels[0].legend(frameon=False)
    return figure


def batch(style: Style) -> Figure:
    """Problems of different sizes in one padded batch: costs, padding, matchings."""
    generator = torch.Generator().manual_seed(3)
    shapes = [(7, 7), (4, 6), (6, 5), (3, 3)]
    problem = gm.stack_problems([gm.LinearProblem(torch.rand(1, *shape, generator=generator)) for shape in shapes])
    result = gm.solve(problem)
    figure, panels = plt.subplots(1, 4, figsize=(9, 2.75))
    for place, (axes, (rows, columns)) in enumerate(zip(panels, shapes, strict=True)):
        real = problem.costs[place].clone()
        real[rows:], real[:, columns:] = torch.nan, torch.nan
        axes.imshow(real.numpy(), cmap=style.colours, vmin=0, vmax=1.3)
        for row in range(7):
            for column in range(7):
                if row >= rows or column >= columns:
                    box = plt.Rectangle(
                        (column - 0.5, row - 0.5),
                        1,
                        1,
                        facecolor="none",
                        edgecolor=style.faint,
                        hatch="///",
                        linewidth=0,
                    )
                    axes.add_patch(box)
        for row, column in enumerate(result.assignment[place].tolist()):
            if column >= 0:
                box = plt.Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=style.second, linewidth=2.5)
                axes.add_patch(box)
        axes.set_title(f"sizes[{place}] = ({rows}, {columns})\ncost {float(result.objective[place]):.2f}")
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure


@functools.cache
def accuracies() -> dict[str, list[float]]:
    """Returns how many nodes of 32 are matched and retrieved rightly, in percent, for each noise of three views."""
    figures: dict[str, list[float]] = {"mean": [], "leave_one_out": [], "retrieval": []}
    for noise in NOISES:
        torch.manual_seed(0)
        means = dict.fromkeys(figures, 0.0)
        for _ in range(8):
            shared = torch.randn(32, 64)
            samples = [shared + noise * torch.randn(32, 64) for _ in range(3)]
            for name in ("mean", "leave_one_out"):
                details = gm.BarycenterAlignment(dim=64, barycenter=name).eval().details(*samples)
                means[name] += float(details.matching_accuracy) / 8
            means["retrieval"] += float(details.retrieval) / 8
        for name, value in means.items():
            figures[name].append(100 * value)
    return figures


def barycenters(style: Style) -> Figure:
    """Three views with their barycenter; how well a view matches it before anything is learned."""
    figure, (star, accuracy) = plt.subplots(1, 2, figsize=(9, 4), width_ratios=(1, 1.15))
    generator = torch.Generator().manual_seed(5)
    points = torch.rand(6, 2, generator=generator)
    views = torch.stack([points + 0.09 * torch.randn(6, 2, generator=generator) for _ in range(3)])
    centre = gm.knn_graph(views[1:].mean(0), 2)
    corners = [(-1.9, 0.0), (1.9, 0.75), (1.9, -0.75)]
    middle = draw_graph(star, centre, (0.0, 0.0), style, [])
    star.text(0.5, -0.1, "mean of the\nother two", ha="center", va="top", color=style.text)
    for view, corner, name in zip(views, corners, ("image", "answer", "extended"), strict=True):
        graph = gm.knn_graph(view, 2)
        places = draw_graph(star, graph, corner, style, [])
        label = (1.1, "bottom") if corner[1] >= 0 else (-0.18, "top")
        star.text(corner[0] + 0.5, corner[1] + label[0], name, ha="center", va=label[1], color=style.text)
        if name == "image":
            costs = edge_costs(graph, centre, 0.3)[None]
            problem = gm.LawlerProblem(torch.cdist(view, centre.nodes)[None], costs, graph.edges, centre.edges)
            for node, partner in enumerate(gm.solve(problem).assignment[0].tolist()):
                star.plot(*torch.stack([places[node], middle[partner]]).T.tolist(), color=style.first, linewidth=1.6)
        else:
            for node in range(6):
                ends = torch.stack([places[node], middle[node]]).T.tolist()
                star.plot(*ends, color=style.faint, linewidth=0.8, linestyle=":")
    star.set_axis_off()
    figures = accuracies()
    labels = {
        "mean": ("match with\nmean of all", style.second, "o"),
        "leave_one_out": ("match with\nmean of others", style.first, "s"),
        "retrieval": ("retrieval\nbetween views", style.third, "^"),
    }
    for name, (label, colour, marker) in labels.items():
        accuracy.plot(range(len(NOISES)), figures[name], color=colour, marker=marker, label=label)
    accuracy.set_xticks(range(len(NOISES)), [f"{noise:g}" for noise in NOISES])
    accuracy.set_xlabel("noise of the views, relative to what they share")
    accuracy.set_ylabel("right, %")
    accuracy.set_ylim(0, 102)
    accuracy.legend(frameon=False, loc="lower left")
    return figure


def gradient(style: Style) -> Figure:
    """The loss of a matching while one cost changes, and two smooth stand-ins."""
    generator = torch.Generator().manual_seed(4)
    costs = torch.rand(6, 6, generator=generator, dtype=torch.float64)
    target = torch.eye(6, dtype=torch.float64)
    shifts = torch.linspace(0.0, 0.9, 181, dtype=torch.float64)
    changed = costs - shifts[:, None, None] * target
    slope = (1 - 2 * target) / 6  # the loss of a matching is <slope, matching> + 1

    figure, axes = plt.subplots(figsize=(9, 3.8))
    plain = gm.solve(gm.LinearProblem(changed))
    loss = (plain.matching * slope).sum((1, 2)) + 1
    axes.plot(shifts, loss, color=style.text, linewidth=2.2, label="loss of the matching: its slope is 0")
    step = 0.25
    moved = gm.solve(gm.LinearProblem(changed + step / slope.abs().max() * slope))
    interpolated = (moved.objective - plain.objective) / (step / slope.abs().max()) + 1
    axes.plot(shifts, interpolated, color=style.second, linewidth=2, linestyle="--", label="what BlackBox descends")
    layer = gm.MatchingLayer(gm.LAP(), gm.IMLE(samples=4000, noise_scale=0.15, noise="gaussian"))
    mean = layer(changed, instances=torch.zeros(len(shifts), dtype=torch.int64), step=0)
    smooth = (mean * slope).sum((1, 2)) + 1
    axes.plot(
        shifts,
        smooth,
        color=style.first,
        linewidth=2,
        linestyle="-.",
        label="mean loss under noise, for IMLE and others",
    )
    axes.set_xlabel("how much cheaper the right pairs become")
    axes.set_ylabel("Hamming loss")
    axes.legend(frameon=False)
    return figure


PICTURES: dict[str, Callable[[Style], Figure]] = {
    "matching": matching,
    "bounds": bounds,
    "batch": batch,
    "barycenters": barycenters,
    "gradient": gradient,
}


def draw(folder: Path) -> None:
    """Writes all pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in PICTURES.items():
        for suffix, style in (("", LIGHT), ("-dark", DARK)):
            colours = {
                "figure.facecolor": style.page,
                "axes.facecolor": style.page,
                "text.color": style.text,
                "axes.labelcolor": style.text,
                "axes.edgecolor": style.faint,
                "xtick.color": style.text,
                "ytick.color": style.text,
                "hatch.color": style.faint,
            }
            shape = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 12, "axes.titlesize": 12}
            with matplotlib.rc_context(
                {**colours, **shape, "svg.hashsalt": name, "figure.constrained_layout.use": True}
            ):
                figure = picture(style)
                path = folder / f"{name}{suffix}.svg"
                partial = path.with_suffix(".partial")
                figure.savefig(partial, format="svg", metadata={"Date": None, "Creator": None})
                partial.replace(path)
                plt.close(figure)


if __name__ == "__main__":
    matplotlib.use("svg")
    torch.set_num_threads(1)
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images")
