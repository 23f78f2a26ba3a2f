"""Pictures of matchings: what is drawn in which colour, and what is left out of large graphs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.colors import same_color, to_rgba

import graphmatch as gm
from graphmatch import _reference, viz
from graphmatch.viz.images import image_array
from graphmatch.viz.paid import paid_costs

SQUARE = torch.tensor([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]])
CYCLE = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 0]])
GRAPH = gm.Graph(SQUARE, CYCLE)


def parts(axes) -> dict:
    """The named collections of axes."""
    return {each.get_gid(): each for each in axes.collections if each.get_gid()}


def texts(figure) -> list[str]:
    legend = figure.axes[0].get_legend()
    return [text.get_text() for text in legend.get_texts()]


def lines(axes, name: str) -> int:
    return len(parts(axes)[name].get_segments()) if name in parts(axes) else 0


def problem_of_cycles(unmatched_cost: float | None = None) -> gm.LawlerProblem:
    """Two cycles; the edges of the first cost 1, 2, 3 and 4 whatever they are matched with."""
    costs = torch.arange(1.0, 5.0)[:, None].expand(4, 4)[None]
    return gm.LawlerProblem(torch.zeros(1, 4, 4), costs, CYCLE, CYCLE, None, unmatched_cost)


def test_matches_are_right_wrong_or_missing():
    figure = viz.draw_matching([0, 2, 1, -1], (GRAPH, GRAPH), target=[0, 1, 2, 3])
    axes = figure.axes[0]
    assert texts(figure) == ["1 right", "2 wrong", "1 unmatched"]
    assert lines(axes, "matches-right") == 1
    assert lines(axes, "matches-wrong") == 2
    assert same_color(parts(axes)["matches-right"].get_colors()[0][:3], viz.LIGHT.right)
    assert same_color(parts(axes)["matches-wrong"].get_colors()[0][:3], viz.LIGHT.wrong)
    fill, rim = parts(axes)["nodes1"].get_facecolors(), parts(axes)["nodes1"].get_edgecolors()
    expected = [viz.LIGHT.right, viz.LIGHT.wrong, viz.LIGHT.wrong, viz.LIGHT.page]
    assert [same_color(*pair) for pair in zip(fill, expected, strict=True)] == [True] * 4
    assert same_color(rim[3], viz.LIGHT.wrong), "it has a partner that it was not matched with"
    dashes = parts(axes)["matches-wrong"].get_linestyles()[0]
    assert dashes != parts(axes)["matches-right"].get_linestyles()[0], "colours are not the only difference"


def test_a_target_may_be_a_matrix_and_say_that_a_node_has_no_partner():
    matrix = torch.eye(4)
    matrix[3] = 0
    figure = viz.draw_matching([0, 1, 2, -1], (GRAPH, GRAPH), target=matrix)
    assert texts(figure) == ["3 right", "1 unmatched"]
    assert same_color(parts(figure.axes[0])["nodes1"].get_edgecolors()[3], viz.LIGHT.right)


def test_edges_are_paid_broken_or_open():
    figure = viz.draw_matching([0, 2, 1, -1], (GRAPH, GRAPH))
    axes = figure.axes[0]
    # 0-1 becomes 0-2, a diagonal; 1-2 becomes 2-1; the others lack a node.
    for side in (1, 2):
        assert [lines(axes, f"edges{side}-{state}") for state in ("paid", "broken", "open")] == [1, 1, 2]
    assert same_color(parts(axes)["edges1-broken"].get_colors()[0], viz.LIGHT.faint)
    assert texts(figure) == ["3 matched", "1 unmatched"]


def test_edges_have_the_colour_of_what_is_paid_for_them():
    axes = viz.draw_matching([0, 1, 2, 3], (GRAPH, GRAPH), problem=problem_of_cycles()).axes[0]
    light = parts(axes)["edges1-paid"].get_colors()[:, :3] @ [0.3, 0.6, 0.1]
    assert len(light) == 4
    assert (np.diff(light) > 0).all(), "dear edges are lighter on a light page"
    labels = [bar.get_xlabel() for bar in axes.child_axes]
    assert labels == ["cost of an edge", "cost of a node"]
    assert axes.child_axes[0].get_xticklabels()[1].get_text() == "4"


def test_equal_costs_have_no_range():
    problem = gm.LawlerProblem(torch.full((1, 4, 4), 5.0), torch.full((1, 4, 4), -2.0), CYCLE, CYCLE)
    axes = viz.draw_matching([0, 1, 2, 3], problem=problem).axes[0]
    assert [[text.get_text() for text in bar.get_xticklabels()] for bar in axes.child_axes] == [["-2"], ["3"]]
    cheapest = viz.theme.cost_colours(viz.LIGHT, np.array([0.0, 1.0])).to_rgba(0.0)
    assert same_color(parts(axes)["edges1-paid"].get_colors()[0], cheapest)


def test_nodes_pay_their_assignment_and_half_of_their_edges():
    unary = torch.arange(16.0).reshape(1, 4, 4)
    problem = problem_of_cycles(unmatched_cost=10.0).with_costs(unary, problem_of_cycles().quadratic_costs)
    for assignment in ([0, 1, 2, 3], [3, -1, 1, 0], [-1, -1, -1, -1]):
        paid = paid_costs("test", np.array(assignment), problem, None, 0)
        unmatched = 10.0 * assignment.count(-1)
        objective = float(_reference.objective(problem, torch.tensor([assignment])))
        assert paid.node_costs.sum() + unmatched == pytest.approx(objective)
        for edges in paid.edges:
            assert edges.costs.sum() == pytest.approx(
                paid.node_costs.sum()
                - sum(unary[0, node, other].item() for node, other in enumerate(assignment) if other >= 0)
            )


def test_repeated_edges_and_loops_are_drawn_once():
    edges = torch.tensor([[0, 1], [1, 0], [0, 1], [1, 1]])
    problem = gm.LawlerProblem(torch.zeros(1, 2, 2), torch.ones(1, 4, 4), edges, edges)
    paid = paid_costs("test", np.array([0, 1]), problem, None, 0)
    assert paid.edges[0].ends.tolist() == [[0, 1]]
    # Two copies onto two copies, the reverse onto the reverse, and a loop that only nodes pay.
    assert paid.edges[0].costs.tolist() == [5.0]
    assert paid.node_costs.tolist() == [2.5, 3.5]


def test_the_title_says_cost_and_gap():
    result = gm.solve(problem_of_cycles())
    title = viz.draw_matching(result).axes[0].get_title()
    assert title.startswith(f"cost {float(result.objective):g}")
    assert "OPTIMAL" in title
    assert viz.draw_matching(result, title="mine").axes[0].get_title() == "mine"


def test_graphs_without_places_get_some():
    result = gm.solve(problem_of_cycles())
    first, second = (parts(viz.draw_matching(result).axes[0])[f"nodes{side}"].get_offsets() for side in (1, 2))
    assert np.unique(first.round(3), axis=0).shape == (4, 2)
    partner = result.assignment[0].numpy()
    assert np.allclose(second[partner] - first, (second[partner] - first)[0]), "partners take the same place"
    again = parts(viz.draw_matching(result).axes[0])["nodes1"].get_offsets()
    assert np.array_equal(first, again)


def test_nodes_without_partner_lie_below_where_graph_2_has_no_places():
    problem = gm.LawlerProblem(torch.zeros(1, 3, 5), torch.zeros(1, 2, 1), CYCLE[:2], CYCLE[:1])
    places = parts(viz.draw_matching([2, 0, 4], problem=problem).axes[0])["nodes2"].get_offsets()
    assert (places[[1, 3], 1] < places[[0, 2, 4], 1].min()).all()


def test_a_matching_without_edges_is_one_between_columns():
    result = gm.solve(gm.LinearProblem(torch.rand(1, 3, 4)))
    axes = viz.draw_matching(result).axes[0]
    places = parts(axes)["nodes1"].get_offsets()
    assert len(set(places[:, 0])) == 1
    assert (np.diff(places[:, 1]) < 0).all()
    assert [bar.get_xlabel() for bar in axes.child_axes] == ["cost of a node"]


@pytest.mark.parametrize("kind", ["grey", "colour", "channels first", "pillow", "file"])
def test_images_lie_under_the_graphs(kind: str, tmp_path):
    from PIL import Image

    pixels = (np.arange(6 * 9 * 3) % 255).astype(np.uint8).reshape(6, 9, 3)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    image = {
        "grey": pixels[:, :, 0],
        "colour": pixels,
        "channels first": torch.from_numpy(pixels / 255.0).permute(2, 0, 1),
        "pillow": Image.fromarray(pixels),
        "file": tmp_path / "image.png",
    }[kind]
    axes = viz.draw_matching([0, 1, 2, 3], (GRAPH, GRAPH), images=(image, image)).axes[0]
    first, second = axes.images
    assert first.get_array().shape[:2] == (6, 9)
    left, right, bottom, top = first.get_extent()
    assert (right - left) / (top - bottom) == pytest.approx(9 / 6)
    places = parts(axes)["nodes1"].get_offsets()
    # Pixel (0, 0) is at the upper left, and its centre half a pixel inside.
    assert places[0].tolist() == pytest.approx([left + 0.5 / 6, top - 0.5 / 6])
    assert places[3][1] == pytest.approx(top - 2.5 / 6)
    assert second.get_extent()[0] > right
    assert all(text in {"0", "1", "2", "3"} for text in (each.get_text() for each in axes.texts))
    assert parts(axes)["edges1-paid"].get_path_effects(), "edges need a rim to be seen on an image"


@pytest.mark.parametrize(
    "kind",
    ["boolean", "16 bits", "signed", "bfloat16", "P", "PA", "CMYK", "YCbCr", "HSV", "LA"],
)
def test_images_of_other_kinds_have_their_colours(kind: str):
    from PIL import Image

    black_and_red = np.zeros((6, 9, 3), dtype=np.uint8)
    black_and_red[3:, :, 0] = 255
    if kind == "LA":
        black_and_red[3:] = 255
    image = {
        "boolean": black_and_red > 0,
        "16 bits": 256 * black_and_red.astype(np.uint16),
        "signed": black_and_red.astype(np.int64) * 100 - 5000,
        "bfloat16": torch.from_numpy(black_and_red).bfloat16() / 255,
    }.get(kind)
    if image is None:
        source = Image.fromarray(black_and_red)
        image = source.convert("P").convert("PA") if kind == "PA" else source.convert(kind)
    shown = image_array("draw_matching", image)[:, :, :3]
    shown = shown / 255 if shown.dtype == np.uint8 else shown
    assert np.abs(shown - black_and_red / 255).max() < 0.02
    viz.draw_matching([0, 1, 2, 3], (GRAPH, GRAPH), images=(image, image))


def test_a_problem_of_a_batch_is_chosen_and_padding_left_out():
    small = gm.LawlerProblem(-torch.eye(2)[None], torch.zeros(1, 1, 1), CYCLE[:1], CYCLE[:1])
    batch = gm.stack_problems([problem_of_cycles(), small])
    result = gm.solve(batch)
    axes = viz.draw_matching(result, place=1).axes[0]
    assert len(parts(axes)["nodes1"].get_offsets()) == 2
    assert lines(axes, "edges1-paid") + lines(axes, "edges1-broken") == 1
    with pytest.raises(ValueError, match=r"^draw_matching: place must be a problem of the batch, in \[0, 2\); got 2\."):
        viz.draw_matching(result, place=2)


@pytest.mark.parametrize("nodes", [60, 300, 800])
def test_large_graphs_are_drawn_thinly(nodes: int):
    torch.manual_seed(0)
    points = torch.rand(nodes, 2)
    graph = gm.knn_graph(points, 4)
    assignment = torch.arange(nodes)
    assignment[:10] = -1
    figure = viz.draw_matching(assignment, (graph, graph), target=torch.arange(nodes))
    axes = figure.axes[0]
    assert not list(axes.texts), "no numbers"
    assert lines(axes, "matches-right") == nodes - 10
    small = viz.draw_matching([0, 1, 2, 3], (GRAPH, GRAPH), target=[0, 1, 2, 3]).axes[0]
    for name in ("matches-right", "edges1-paid"):
        assert parts(axes)[name].get_linewidths()[0] < parts(small)[name].get_linewidths()[0]
    assert lines(axes, "edges1-paid") <= 1500
    assert ("edges1-open" in parts(axes)) == (nodes <= 200), "of huge graphs only what is matched"


def test_dense_graphs_show_the_edges_that_pay_most():
    nodes = 60
    graph = gm.complete_graph(torch.rand(nodes, 2))
    costs = torch.diag(torch.linspace(0, 1, len(graph.edges)))[None]
    problem = gm.LawlerProblem(torch.zeros(1, nodes, nodes), costs, graph.edges, graph.edges)
    axes = viz.draw_matching(torch.arange(nodes), (graph, graph), problem=problem).axes[0]
    assert lines(axes, "edges1-paid") == 1500
    assert axes.child_axes[0].get_xticklabels()[1].get_text() == "1.98"


@pytest.mark.parametrize("theme", ["light", "dark", viz.DARK])
def test_themes(theme):
    style = {"light": viz.LIGHT, "dark": viz.DARK}.get(theme, theme) if isinstance(theme, str) else theme
    figure = viz.draw_matching([0, 1, 2, -1], (GRAPH, GRAPH), target=[0, 1, 3, 2], theme=theme)
    axes = figure.axes[0]
    assert same_color(figure.get_facecolor(), style.page)
    assert same_color(axes.get_facecolor(), style.page)
    assert same_color(axes.title.get_color(), style.text) or not axes.get_title()
    assert all(same_color(text.get_color(), style.text) for text in axes.get_legend().get_texts())


def test_own_axes_are_drawn_into():
    from matplotlib.figure import Figure

    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert viz.draw_matching([0, 1, 2, 3], (GRAPH, GRAPH), axes=right) is figure
    assert not left.collections
    assert right.collections


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        (([0, 1, 2, 3],), {}, TypeError, "an assignment must come with graphs; got none"),
        (("best",), {"graphs": (GRAPH, GRAPH)}, TypeError, "matching must be a MatchResult or whole numbers"),
        (([0.0, 1.0],), {"graphs": (GRAPH, GRAPH)}, TypeError, "matching must be a MatchResult or whole numbers"),
        (([0, 1, 2],), {"graphs": (GRAPH, GRAPH)}, ValueError, r"matching must hold 4 nodes of graph 2, each in"),
        (([0, 1, 2, 9],), {"graphs": (GRAPH, GRAPH)}, ValueError, "matching must hold 4 nodes"),
        (([0, 1, 2, 3],), {"graphs": (GRAPH,)}, ValueError, "graphs must be two, one for each graph; got 1"),
        (([0, 1, 2, 3],), {"graphs": (GRAPH, GRAPH), "target": [0]}, ValueError, "target must hold the true partner"),
        (([0, 1, 2, 3],), {"graphs": (GRAPH, GRAPH), "theme": "drak"}, ValueError, r"Did you mean dark\?"),
        (([0, 1, 2, 3],), {"graphs": (GRAPH, GRAPH), "axes": 3}, TypeError, "axes must be axes of matplotlib"),
        (
            ([0, 1, 2, 3],),
            {"graphs": (GRAPH, GRAPH), "images": (np.zeros((2, 2, 7)),) * 2},
            ValueError,
            "images must be images",
        ),
        (([0, 1, 2, 3],), {"graphs": (GRAPH, GRAPH), "target": [0, 1, 2, 4]}, ValueError, "target must hold nodes in"),
        (([0, 1, 2, 3],), {"graphs": (GRAPH, GRAPH), "target": [0, 1, 2, -2]}, ValueError, "target must hold nodes in"),
        (([0, 1, 2, 3],), {"problem": problem_of_cycles(), "place": 1}, ValueError, "place must be a problem"),
        (([0, 1, 2, 3],), {"graphs": (GRAPH, gm.Graph(SQUARE, CYCLE + 1))}, ValueError, "edges must hold node indices"),
        (([0, 1, 2, 3],), {"problem": problem_of_cycles(), "images": (np.zeros((2, 2)),) * 2}, ValueError, "images"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_go_together_are_refused(arguments, options, error, text):
    with pytest.raises(error, match=f"^draw_matching: .*{text}"):
        viz.draw_matching(*arguments, **options)


def test_graphs_of_another_size_than_the_problem_are_refused():
    result = gm.solve(problem_of_cycles())
    other = gm.Graph(SQUARE[:3], CYCLE[:2])
    with pytest.raises(ValueError, match=r"^draw_matching: graphs must have 4 and 4 nodes, as the problem; got"):
        viz.draw_matching(result, (GRAPH, other))


def test_dense_problems_are_sent_to_the_matrices():
    result = gm.solve(gm.KoopmansBeckmannProblem(torch.ones(1, 3, 3), torch.ones(1, 3, 3)))
    with pytest.raises(TypeError, match=r"Use draw_costs"):
        viz.draw_matching(result)


def test_nothing_at_all_can_be_drawn():
    nothing = gm.Graph(torch.zeros(0, 2), torch.zeros(0, 2, dtype=torch.int64))
    figure = viz.draw_matching(torch.zeros(0, dtype=torch.int64), (nothing, nothing))
    assert texts(figure) == []
    one = gm.Graph(torch.zeros(1, 2), torch.zeros(0, 2, dtype=torch.int64))
    assert texts(viz.draw_matching([], (nothing, one), target=[])) == [], "an empty list has no type of its own"
    assert figure._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_nodes_lie_somewhere(broken: float):
    nowhere = gm.Graph(torch.tensor([[0.0, 0.0], [1.0, broken], [2.0, 0.0], [0.0, 2.0]]), CYCLE)
    image = np.zeros((4, 4))
    for images in (None, (image, image)):
        with pytest.raises(
            ValueError, match=rf"^draw_matching: graphs must have finite places; got \[1.0, {broken}\] for node 1"
        ):
            viz.draw_matching([0, 1, 2, 3], (GRAPH, nowhere), images=images)
    result = gm.solve_multigraph(gm.MultiGraphProblem.from_graphs([GRAPH, GRAPH]), gm.AllPairs())
    with pytest.raises(ValueError, match=r"^draw_universe: graphs must have finite places"):
        viz.draw_universe(result, [GRAPH, nowhere])


def test_colours_of_the_themes_differ_for_every_kind_of_colour_vision():
    """Simulated dichromats (G. Machado, M. Oliveira, L. Fernandes, IEEE TVCG 15, 2009)."""
    simulations = {
        "normal": np.eye(3),
        "protanopia": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
        "deuteranopia": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    }
    for theme in (viz.LIGHT, viz.DARK):
        for name, matrix in simulations.items():
            seen = [matrix @ np.array(to_rgba(colour)[:3]) for colour in (theme.right, theme.wrong, theme.page)]
            for first in range(3):
                for second in range(first):
                    assert np.linalg.norm(seen[first] - seen[second]) > 0.35, (theme.page, name, first, second)
