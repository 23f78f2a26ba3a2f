"""Several graphs and their universe."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.colors import same_color

import graphmatch as gm
from graphmatch import viz


def solved(graphs: int, nodes: int, missing: bool = True) -> tuple[gm.MultiGraphResult, list[gm.Graph]]:
    generator = torch.Generator().manual_seed(3)
    points = torch.rand(nodes, 2, generator=generator)
    views = []
    for graph in range(graphs):
        order = torch.randperm(nodes, generator=generator)[: nodes - (graph % 2 if missing else 0)]
        views.append(gm.knn_graph(points[order] + 0.01 * torch.randn(len(order), 2, generator=generator), 3))
    problem = gm.MultiGraphProblem.from_graphs(views, unmatched_cost=-0.5)
    return gm.solve_multigraph(problem, gm.SequentialConstruction()), views


def parts(axes) -> dict:
    return {each.get_gid(): each for each in (*axes.collections, *axes.lines) if each.get_gid()}


def test_graphs_and_table_show_the_same_elements():
    result, graphs = solved(5, 7)
    figure = viz.draw_universe(result, graphs)
    assert [axes.get_title() for axes in figure.axes] == [*(f"graph {graph}" for graph in range(5)), ""]
    table = figure.axes[-1]
    stations = parts(table)["stations"].get_offsets()
    counts = result.problem.node_counts
    assert len(stations) == int(counts.sum())
    # The station of node 0 of graph 1 lies in the column of its element, and has its colour.
    place = int(counts[0])
    element = int(result.labels[1, 0])
    column = next(x for x in range(result.universe_size) if table.get_xticklabels()[x].get_text() == chr(65 + element))
    assert stations[place].tolist() == [column, 1]
    of_graph = parts(figure.axes[1])["nodes"].get_facecolors()[0]
    assert same_color(parts(table)["stations"].get_facecolors()[place], of_graph)
    assert figure.axes[1].texts[0].get_text() == chr(65 + element)
    assert table.texts[place].get_text() == "0"
    assert [label.get_text() for label in table.get_yticklabels()] == [f"graph {graph}" for graph in range(5)]
    assert figure._suptitle.get_text().endswith(f"universe of {result.universe_size}")


def test_elements_of_most_graphs_come_first():
    result, graphs = solved(4, 6)
    table = viz.draw_universe(result, graphs).axes[-1]
    columns = parts(table)["stations"].get_offsets()[:, 0]
    counts = np.bincount(columns.astype(int))
    assert (np.diff(counts) <= 0).all()
    assert len(counts) == result.universe_size


def test_places_are_those_of_the_graphs_or_of_the_universe():
    result, graphs = solved(3, 6, missing=False)
    given = [parts(axes)["nodes"].get_offsets() for axes in viz.draw_universe(result, graphs).axes[:3]]
    found = [parts(axes)["nodes"].get_offsets() for axes in viz.draw_universe(result).axes[:3]]
    points = graphs[0].nodes.numpy()
    scaled = (points - points.min(0)) / (points.max(0) - points.min(0)).max()
    assert np.allclose(given[0] - given[0].min(0), scaled, atol=1e-5)
    labels = result.labels
    for graph in (1, 2):
        same = [labels[0].tolist().index(label) for label in labels[graph].tolist()]
        assert np.allclose(found[graph], found[0][same]), "nodes of one element lie in one place"


@pytest.mark.parametrize(("graphs", "nodes"), [(13, 4), (2, 41)])
def test_many_graphs_or_nodes_leave_the_table_alone(graphs: int, nodes: int):
    result, _ = solved(graphs, nodes, missing=False)
    figure = viz.draw_universe(result, theme="dark")
    assert len(figure.axes) == 1
    assert len(parts(figure.axes[0])["stations"].get_offsets()) == graphs * nodes
    assert bool(figure.axes[0].texts) == (nodes <= 40)
    assert same_color(figure.get_facecolor(), viz.DARK.page)


@pytest.mark.parametrize("counts", [(0, 0), (0, 0, 0), (1, 0), (2, 1, 0)], ids=str)
def test_graphs_without_nodes_can_be_drawn(counts: tuple[int, ...]):
    graphs = [gm.Graph(torch.rand(count, 2), torch.zeros(0, 2, dtype=torch.int64)) for count in counts]
    result = gm.solve_multigraph(gm.MultiGraphProblem.from_graphs(graphs, unmatched_cost=0.0))
    for given in (graphs, None):
        figure = viz.draw_universe(result, given)
        assert len(parts(figure.axes[-1])["stations"].get_offsets()) == sum(counts)
        figure.canvas.draw()


def test_letters_go_on_after_z():
    from graphmatch.viz.multigraph import _letter

    assert [_letter(element) for element in (0, 25, 26, 51, 52, 701, 702)] == ["A", "Z", "AA", "AZ", "BA", "ZZ", "AAA"]


def test_arguments_that_do_not_go_together_are_refused():
    result, graphs = solved(3, 5)
    with pytest.raises(
        ValueError, match=r"^draw_universe: graphs must be the 3 of the problem, with \[5, 4, 5\] nodes"
    ):
        viz.draw_universe(result, graphs[:2])
    with pytest.raises(TypeError, match=r"^draw_universe: result must be a MultiGraphResult"):
        viz.draw_universe(result.pairwise)
    with pytest.raises(ValueError, match=r"Did you mean light\?"):
        viz.draw_universe(result, theme="lihgt")
