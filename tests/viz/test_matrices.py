"""Costs and matchings as matrices, and dense problems before and after the permutation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.colors import same_color

import graphmatch as gm
from graphmatch import viz

COSTS = torch.tensor([[1.0, 9, 9, 9], [9, 2, 9, 9], [9, 9, 3, torch.inf]])


def parts(axes) -> dict:
    return {each.get_gid(): each for each in axes.collections if each.get_gid()}


def cells(axes, name: str) -> list[tuple[int, int]]:
    """The rows and columns of marked cells."""
    boxes = [path.get_extents() for path in parts(axes)[name].get_paths()]
    return [(round((box.y0 + box.y1) / 2), round((box.x0 + box.x1) / 2)) for box in boxes]


def test_the_matching_is_framed_in_the_costs():
    figure = viz.draw_costs(COSTS, [0, -1, 2])
    costs, matching = figure.axes[:2]
    assert cells(costs, "paid") == [(0, 0), (2, 2)]
    assert costs.get_title() == "costs: 4 paid"
    assert cells(matching, "matched") == [(0, 0), (2, 2)]
    shown = costs.images[0].get_array()
    assert shown[0, 0] == 1
    assert np.isnan(np.asarray(shown)[2, 3]) or shown.mask[2, 3], "forbidden cells are blank"
    assert (costs.get_xlabel(), costs.get_ylabel()) == ("4 columns", "3 rows")


@pytest.mark.parametrize("theme", [viz.LIGHT, viz.DARK])
def test_right_wrong_and_missed(theme):
    figure = viz.draw_costs(COSTS, [0, 2, -1], target=[0, 1, 2], theme=theme)
    matching = figure.axes[1]
    assert cells(matching, "right") == [(0, 0)]
    assert cells(matching, "wrong") == [(1, 2)]
    assert cells(matching, "missed") == [(1, 1), (2, 2)]
    assert same_color(parts(matching)["right"].get_facecolor()[0], theme.right)
    assert same_color(parts(matching)["wrong"].get_facecolor()[0], theme.wrong)
    assert len(parts(matching)["missed"].get_facecolor()) == 0 or parts(matching)["missed"].get_facecolor()[0][3] == 0
    texts = [text.get_text() for text in matching.get_legend().get_texts()]
    assert texts == ["1 right", "1 wrong", "2 missed"]
    assert same_color(figure.get_facecolor(), theme.page)


def test_results_and_problems_do_as_well():
    linear = gm.solve(gm.LinearProblem(COSTS[None]))
    assert viz.draw_costs(linear).axes[0].get_title() == "costs: 6 paid"
    edges = torch.tensor([[0, 1], [1, 2]])
    problem = gm.LawlerProblem(COSTS[None], torch.zeros(1, 2, 2), edges, edges)
    assert viz.draw_costs(gm.solve(problem)).axes[0].get_title() == "costs: 6 paid"
    assert viz.draw_costs(problem, [0, -1, 2]).axes[0].get_title() == "costs: 4 paid"
    batch = gm.solve(gm.LinearProblem(torch.stack([COSTS, COSTS[:, [1, 0, 2, 3]]])))
    assert cells(viz.draw_costs(batch, place=1).axes[0], "paid") == [(0, 1), (1, 0), (2, 2)]


def test_large_matrices_have_dots():
    costs = torch.rand(150, 120)
    axes = viz.draw_costs(costs, gm.solve(gm.LinearProblem(costs[None])).assignment[0]).axes[0]
    assert len(parts(axes)["paid"].get_offsets()) == 120


@pytest.mark.parametrize("linear", [False, True])
def test_dense_problems_before_and_after(linear: bool):
    torch.manual_seed(0)
    flow, distance = torch.randint(10, (2, 1, 6, 6)).double()
    extra = torch.randint(10, (1, 6, 6)).double() if linear else None
    problem = gm.KoopmansBeckmannProblem(flow, distance, extra)
    result = gm.solve(problem)
    figure = viz.draw_costs(result)
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 4
    order = result.assignment[0].numpy()
    permuted = distance[0].numpy()[np.ix_(order, order)]
    shown = [np.asarray(axes.images[0].get_array()) for axes in panels]
    for found, expected in zip(shown, (flow[0], distance[0], permuted, flow[0].numpy() * permuted), strict=True):
        assert np.array_equal(found, np.asarray(expected))
    paid = shown[3].sum() + (float(extra[0, range(6), order].sum()) if linear else 0.0)
    assert paid == float(result.objective)
    assert figure._suptitle.get_text().startswith(f"cost {float(result.objective):g}")
    assert ("linear" in figure._suptitle.get_text()) == linear
    assert panels[1].get_title() == f"distance, as given: cost {float((flow * distance).sum()):g}"


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((COSTS,), TypeError, "matching must be given; got none"),
        ((COSTS[None], [0, 1, 2]), ValueError, r"costs must be a matrix .* costs\[0\]"),
        ((COSTS, [0, 1]), ValueError, r"matching must hold 3 nodes in \[0, 4\), or -1; got \[0, 1\]"),
        ((COSTS, [0, 1, 4]), ValueError, "matching must hold 3 nodes"),
        (
            (gm.KoopmansBeckmannProblem(torch.ones(1, 3, 3), torch.ones(1, 3, 3)), [0, 0, 1]),
            ValueError,
            "matching must be a permutation of 3 nodes",
        ),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(arguments, error, text):
    with pytest.raises(error, match=f"^draw_costs: {text}"):
        viz.draw_costs(*arguments)


def test_nothing_at_all_can_be_drawn():
    assert viz.draw_costs(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))._repr_png_()
