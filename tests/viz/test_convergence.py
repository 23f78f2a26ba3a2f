"""Objective and bound over time: what is recorded, and how it is drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.colors import same_color

import graphmatch as gm
from graphmatch import viz


@pytest.fixture(scope="module")
def problem() -> gm.LawlerProblem:
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(12, (2, 40, 2), generator=generator)
    costs = -torch.rand(1, 12, 12, generator=generator), -torch.rand(1, 40, 40, generator=generator)
    return gm.LawlerProblem(*costs, *edges)


def falls(values) -> bool:
    return all(second <= first for first, second in pairwise(values))


@pytest.mark.parametrize("warm", [True, False])
def test_the_record_is_of_the_best_so_far(problem, warm: bool):
    record = viz.record_convergence(problem, gm.DualAscent(max_gap=0.0), [1, 3, 10, 30], warm=warm)
    assert (record.name, record.option, record.warm) == ("DualAscent", "max_iterations", warm)
    assert record.budgets == (1, 3, 10, 30)
    assert record.iterations[:3] == (1, 3, 10), "later it may find that nothing improves any more"
    assert falls(record.objective)
    assert falls([-bound for bound in record.lower_bound])
    assert record.lower_bound[0] < record.lower_bound[-1] <= record.objective[-1]
    assert all(seconds > 0 for seconds in record.seconds)
    if warm:
        assert falls([-seconds for seconds in record.seconds]), "time is that of all calls so far"


def test_a_cold_record_is_what_single_calls_find(problem):
    record = viz.record_convergence(problem, gm.DualAscent(max_gap=0.0), [2, 20], warm=False)
    alone = [gm.solve(problem, gm.DualAscent(max_iterations=budget, max_gap=0.0)) for budget in (2, 20)]
    assert record.objective[1] == min(float(each.objective) for each in alone)
    assert record.lower_bound[1] == max(float(each.lower_bound) for each in alone)


@pytest.mark.parametrize(
    ("solver", "option"),
    [
        (None, "effort"),
        (gm.Portfolio(), "effort"),
        (gm.Tabu(), "time_limit"),
        (gm.FAQ(), "max_iterations"),
    ],
    ids=str,
)
def test_the_option_that_grows(problem, solver, option: str):
    dense = gm.KoopmansBeckmannProblem(torch.rand(1, 9, 9), torch.rand(1, 9, 9))
    record = viz.record_convergence(
        dense if solver == gm.FAQ() else problem, solver, [0.01, 0.02] if option != "max_iterations" else [1, 2]
    )
    assert record.option == option
    assert math.isfinite(record.objective[-1])


@dataclass(frozen=True)
class Forgetful:
    """A solver that could be warm-started, and returns nothing to start from; it notes its budgets."""

    effort: float = 1.0
    seen: list = field(default_factory=list)

    def solve(self, problem):
        self.seen.append(self.effort)
        return replace(gm.DualAscent().solve(problem), state=None)

    def solve_from(self, state, problem):
        raise AssertionError


def test_without_a_state_every_call_gets_its_whole_budget(problem):
    solver = Forgetful()
    record = viz.record_convergence(problem, solver, [1, 2, 4])
    assert not record.warm
    assert solver.seen == [1, 2, 4]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"budgets": []}, ValueError, r"budgets must be positive and grow; got \[\]"),
        ({"budgets": [3, 3]}, ValueError, r"budgets must be positive and grow; got \[3, 3\]"),
        ({"budgets": [0, 3]}, ValueError, "budgets must be positive"),
        ({"option": "efort"}, TypeError, r"option must be an option of Portfolio; got 'efort'. Did you mean effort\?"),
        ({"option": "seed"}, ValueError, "option must be one of effort, max_iterations, time_limit; got 'seed'"),
        ({"solver": gm.BruteForce()}, TypeError, "option must be an option of BruteForce; got none"),
        ({"solver": "Tabu"}, TypeError, "solver must be a solver of graphmatch"),
        ({"place": 1}, ValueError, "place must be a problem of the batch; got 1"),
    ],
    ids=str,
)
def test_records_that_make_no_sense_are_refused(problem, options, error, text):
    with pytest.raises(error, match=f"^record_convergence: {text}"):
        viz.record_convergence(problem, **options)


RECORD = viz.Convergence("Tabu", "time_limit", (1, 2, 4), (0.1, 0.2, 0.4), (3, 6, 9), (-4, -5, -5), (-9, -6, -6), True)


def test_the_gap_is_the_area_between_the_lines():
    figure = viz.draw_convergence(RECORD, best_known=-5.5)
    axes = figure.axes[0]
    objective, bound, best = axes.lines
    assert objective.get_xydata().tolist() == [[0.1, -4], [0.2, -5], [0.4, -5]]
    assert bound.get_ydata().tolist() == [-9, -6, -6]
    assert best.get_ydata() == [-5.5, -5.5]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["objective", "lower bound", "best known"]
    assert objective.get_marker() != bound.get_marker()
    assert axes.get_title() == "Tabu: gap 20 % after 0.4 s"
    extent = axes.collections[0].get_datalim(axes.transData)
    assert (extent.y0, extent.y1) == (-9, -4)
    assert axes.get_xscale() == "log"


@pytest.mark.parametrize(
    ("over", "places", "label"),
    [
        ("seconds", [0.1, 0.2, 0.4], "seconds"),
        ("iterations", [3, 6, 9], "iterations"),
        ("budget", [1, 2, 4], "time_limit"),
    ],
)
def test_over_what(over: str, places: list, label: str):
    axes = viz.draw_convergence(RECORD, over=over).axes[0]
    assert axes.lines[0].get_xdata().tolist() == places
    assert axes.get_xlabel() == label


@pytest.mark.parametrize(
    ("objective", "bound", "text"),
    [
        (math.inf, -math.inf, "no matching"),
        (math.inf, math.inf, "no matching"),
        (math.inf, 3.0, "no matching"),
        (0.0, -1.5, "gap 1.5"),
        (3.0, -math.inf, "gap open"),
        (0.0, 0.0, "gap 0 %"),
        (-4.0, -5.0, "gap 25 %"),
    ],
)
def test_the_title_says_how_it_ended(objective: float, bound: float, text: str):
    record = viz.Convergence("Tabu", "effort", (1,), (2.0,), (5,), (objective,), (bound,), False)
    assert viz.draw_convergence(record).axes[0].get_title() == f"Tabu: {text} after 2 s"


def test_no_record_is_left_out():
    record = viz.Convergence("Tabu", "effort", (1,), (2.0,), (5,), (4.0,), (3.0,), False)
    with pytest.raises(ValueError, match=r"^draw_convergence: records must be at most 7, a colour each; got 8\."):
        viz.draw_convergence([record] * 8)
    assert len(viz.draw_convergence([record] * 7).axes[0].get_legend().get_texts()) == 14


def test_several_solvers_have_a_colour_each():
    figure = viz.draw_convergence([RECORD, replace(RECORD, name="FAQ", lower_bound=(-np.inf,) * 3)], theme="dark")
    axes = figure.axes[0]
    colours = [line.get_color() for line in axes.lines]
    assert same_color(colours[0], colours[1])
    assert not same_color(colours[0], colours[2])
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["Tabu: objective", "Tabu: lower bound", "FAQ: objective", "FAQ: lower bound"]
    assert np.isnan(axes.lines[3].get_ydata()).all(), "nothing was proven"
    assert same_color(figure.get_facecolor(), viz.DARK.page)
    assert figure._repr_png_()


def test_pictures_that_make_no_sense_are_refused():
    with pytest.raises(TypeError, match=r"^draw_convergence: records must be one or several records"):
        viz.draw_convergence([])
    with pytest.raises(ValueError, match=r"^draw_convergence: over must be .*Did you mean seconds\?"):
        viz.draw_convergence(RECORD, over="second")
