"""Graphs matched over a barycenter graph, as the multi-graph study does."""

from __future__ import annotations

import pytest
import torch

import graphmatch as gm
from graphmatch.studies.barycenter_match import BarycenterGraph
from graphmatch.studies.multigraph_problems import accuracy, planted_copies, planted_problem


def test_a_barycenter_graph_improves_on_the_graph_that_it_begins_with():
    options = {"graphs": 12, "nodes": 12, "noise": 0.5, "features": 8, "neighbours": 4}
    right = []
    for rounds in (1, 5):
        shares = []
        for seed in range(5):
            problem, planted = planted_problem(**options, seed=seed)
            copies, same = planted_copies(**options, seed=seed)
            assert torch.equal(planted, same)
            found = BarycenterGraph(copies, neighbours=4, rounds=rounds).solve(problem)
            assert found.consistency == 1
            shares.append(accuracy(found, planted))
            if rounds == 1:
                assert found.objective == pytest.approx(gm.Star(0).solve(problem).objective, rel=0.02)
        right.append(sum(shares) / 5)
    assert right[1] > right[0] + 0.05


def test_the_costs_of_pairs_do_not_matter_for_the_matchings():
    options = {"graphs": 4, "nodes": 7, "noise": 0.3, "features": 6, "neighbours": 3, "seed": 1}
    problem, planted = planted_problem(**options)
    copies, _ = planted_copies(**options)
    other, _ = planted_problem(**{**options, "seed": 2})
    method = BarycenterGraph(copies, neighbours=3)
    assert torch.equal(method.solve(problem).labels, method.solve(other).labels)
    assert method.solve(problem).objective < method.solve(other).objective
    assert accuracy(method.solve(problem), planted) > 0.9
