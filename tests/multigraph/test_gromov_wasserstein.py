"""Soft couplings and barycenters against POT, their closed forms, and the hard matchings that they relax."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import ot
import pytest
import torch
from torch import Tensor

import graphmatch as gm
from graphmatch.sinkhorn import transport_plan

ERROR_FORM = r"^\S.*: .+ must .+; got .+\. \S.*\.$"
SHARES = [0.5, 0.3, 0.2]


def random_graph(size: int, seed: int, symmetric: bool = True, dim: int = 3) -> gm.StructuredGraph:
    generator = torch.Generator().manual_seed(seed)
    nodes = torch.randn(size, dim, generator=generator, dtype=torch.float64)
    structure = (torch.rand(size, size, generator=generator) < 0.4).double().triu(1)
    return gm.StructuredGraph(nodes, structure + structure.T if symmetric else structure)


def shuffled(graph: gm.StructuredGraph, seed: int) -> tuple[gm.StructuredGraph, Tensor]:
    order = torch.randperm(len(graph.nodes), generator=torch.Generator().manual_seed(seed))
    return gm.StructuredGraph(graph.nodes[order], graph.structure[order][:, order]), order


def mass_of(size: int, seed: int) -> Tensor:
    mass = torch.rand(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5
    return mass / mass.sum()


def feature_costs(left: gm.StructuredGraph, right: gm.StructuredGraph) -> np.ndarray:
    return (left.nodes[:, None] - right.nodes).square().sum(2).numpy()


def by_hand(left, right, coupling: Tensor, structure_weight: float, temperature: float) -> tuple[float, float]:
    """Transport costs and F of a coupling, by the formula."""
    linear = float((torch.from_numpy(feature_costs(left, right)) * coupling).sum())
    tensor = (left.structure[:, None, :, None] - right.structure[None, :, None, :]).square()
    quadratic = float(torch.einsum("ijkl,ij,kl->", tensor, coupling, coupling))
    transport = (1 - structure_weight) * linear + structure_weight * quadratic
    entropy = float((torch.xlogy(coupling, coupling) - coupling).sum())
    return transport, transport + temperature * entropy


def numpy_parts(graphs) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return [graph.nodes.numpy() for graph in graphs], [graph.structure.numpy() for graph in graphs]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("structure_weight", "temperature"), [(0.2, 0.1), (0.5, 0.5), (0.5, 0.1), (1.0, 0.5)])
def test_couplings_are_those_of_pot(structure_weight: float, temperature: float, symmetric: bool):
    left, right = random_graph(6, 1, symmetric), random_graph(8, 2, symmetric)
    masses = (mass_of(6, 1), mass_of(8, 2))
    mine = gm.fused_gromov_wasserstein(left, right, structure_weight, temperature, masses, tolerance=1e-9)
    assert mine.converged
    theirs = ot.gromov.entropic_fused_gromov_wasserstein(
        feature_costs(left, right),
        left.structure.numpy(),
        right.structure.numpy(),
        *(mass.numpy() for mass in masses),
        loss_fun="square_loss",
        symmetric=symmetric,
        epsilon=temperature,
        alpha=structure_weight,
        max_iter=5000,
        tol=1e-11,
    )
    np.testing.assert_allclose(mine.coupling.numpy(), theirs, atol=1e-7)
    transport, objective = by_hand(left, right, mine.coupling, structure_weight, temperature)
    assert mine.distance**2 == pytest.approx(transport)
    assert mine.objective == pytest.approx(objective)


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.01])
def test_masses_are_the_sums(temperature: float):
    masses = (mass_of(5, 3), mass_of(9, 4))
    result = gm.fused_gromov_wasserstein(random_graph(5, 3), random_graph(9, 4), 0.5, temperature, masses)
    assert result.converged
    torch.testing.assert_close(result.coupling.sum(1), masses[0])
    torch.testing.assert_close(result.coupling.sum(0), masses[1])
    assert (result.coupling >= 0).all()


def test_objective_falls_with_the_iterations():
    left, right = random_graph(7, 5), random_graph(7, 6)
    values = [
        gm.fused_gromov_wasserstein(left, right, 0.9, 0.02, max_iterations=count).objective for count in range(1, 12)
    ]
    # Each step knows the masses to some digits only.
    assert all(after <= before + 1e-6 for before, after in pairwise(values))
    assert values[-1] < values[0]
    assert not gm.fused_gromov_wasserstein(left, right, 0.9, 0.02, max_iterations=1).converged


@pytest.mark.parametrize("seed", range(4))
def test_hard_limit_is_the_distance_of_hard_matchings(seed: int):
    """For nearly equal graphs the coupling hardens to the optimal matching, and its cost to the distance."""
    graph = random_graph(7, seed)
    other, _ = shuffled(graph, seed)
    other = gm.StructuredGraph(other.nodes + 0.05, other.structure)
    hard = gm.sga_distance(graph, other)
    soft = gm.fused_gromov_wasserstein(graph, other, temperature=0.003)
    assert torch.equal(soft.coupling.argmax(1), hard.matching)
    assert soft.distance == pytest.approx(float(hard), abs=1e-3)


def test_couplings_of_two_numberings():
    left, right = random_graph(5, 7), random_graph(6, 8)
    other, order = shuffled(right, 1)
    first = gm.fused_gromov_wasserstein(left, right, tolerance=1e-9)
    second = gm.fused_gromov_wasserstein(left, other, tolerance=1e-9)
    turned = gm.fused_gromov_wasserstein(right, left, tolerance=1e-9)
    torch.testing.assert_close(second.coupling, first.coupling[:, order], atol=1e-6, rtol=0)
    torch.testing.assert_close(turned.coupling, first.coupling.T, atol=1e-6, rtol=0)


def test_structure_barycenters_are_those_of_pot():
    graphs = [random_graph(size, size) for size in (5, 6, 7)]
    start = random_graph(6, 9)
    options = {"structure_weight": 1.0, "temperature": 0.1, "start": start, "tolerance": 1e-9}
    mine = gm.fused_gromov_wasserstein_barycenter(graphs, 6, SHARES, **options)
    theirs = ot.gromov.entropic_gromov_barycenters(
        6,
        numpy_parts(graphs)[1],
        lambdas=SHARES,
        loss_fun="square_loss",
        epsilon=0.1,
        max_iter=1000,
        tol=1e-11,
        init_C=start.structure.numpy(),
    )
    assert mine.converged
    np.testing.assert_allclose(mine.barycenter.structure.numpy(), theirs, atol=1e-6)


def test_entropic_barycenters_are_fixed_points_of_pot():
    """From our barycenter POT finds our couplings from scratch, and they lead back to our structure."""
    graphs = [random_graph(size, size) for size in (5, 6, 7)]
    options = {"temperature": 0.5, "start": random_graph(6, 9), "tolerance": 1e-9}
    mine = gm.fused_gromov_wasserstein_barycenter(graphs, 6, SHARES, **options)
    assert mine.converged
    nodes, structures = numpy_parts(graphs)
    _, structure, log = ot.gromov.entropic_fused_gromov_barycenters(
        6,
        nodes,
        structures,
        lambdas=SHARES,
        loss_fun="square_loss",
        epsilon=0.5,
        alpha=0.5,
        max_iter=1000,
        tol=1e-11,
        init_C=mine.barycenter.structure.numpy(),
        init_Y=mine.barycenter.nodes.numpy(),
        fixed_features=True,
        log=True,
    )
    np.testing.assert_allclose(mine.barycenter.structure.numpy(), structure, atol=1e-6)
    for coupling, theirs in zip(mine.couplings, log["T"], strict=True):
        np.testing.assert_allclose(coupling.numpy().T, theirs, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_barycenters_at_low_temperature_are_the_hard_ones_of_pot(seed: int):
    graphs = [random_graph(size, size + 10 * seed) for size in (5, 6, 7)]
    start = random_graph(6, 9 + 10 * seed)
    mine = gm.fused_gromov_wasserstein_barycenter(graphs, 6, SHARES, temperature=0.002, start=start)
    nodes, structures = numpy_parts(graphs)
    theirs = ot.gromov.fgw_barycenters(
        6,
        nodes,
        structures,
        [np.full(len(x), 1 / len(x)) for x in nodes],
        SHARES,
        alpha=0.5,
        loss_fun="square_loss",
        max_iter=1000,
        tol=1e-12,
        init_C=start.structure.numpy(),
        init_X=start.nodes.numpy(),
    )
    np.testing.assert_allclose(mine.barycenter.nodes.numpy(), theirs[0], atol=1e-5)
    np.testing.assert_allclose(mine.barycenter.structure.numpy(), theirs[1], atol=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 0.05])
def test_barycenter_is_the_closed_form_of_its_couplings(temperature: float):
    graphs = [random_graph(size, size, symmetric=False) for size in (4, 6, 5)]
    masses = [mass_of(len(graph.nodes), place) for place, graph in enumerate(graphs)]
    mass = mass_of(5, 9)
    result = gm.fused_gromov_wasserstein_barycenter(graphs, 5, SHARES, 0.4, temperature, masses, mass)
    assert result.converged
    assert all(after <= before + 1e-6 for before, after in pairwise(result.objective_history))
    nodes, structure, objective = 0.0, 0.0, 0.0
    for graph, coupling, share, own in zip(graphs, result.couplings, SHARES, masses, strict=True):
        torch.testing.assert_close(coupling.sum(1), own, atol=1e-6, rtol=0)
        torch.testing.assert_close(coupling.sum(0), mass, atol=1e-6, rtol=0)
        nodes = nodes + share * (coupling.T @ graph.nodes) / mass[:, None]
        structure = structure + share * (coupling.T @ graph.structure @ coupling) / (mass[:, None] * mass)
        objective += share * by_hand(graph, result.barycenter, coupling, 0.4, temperature)[1]
    torch.testing.assert_close(result.barycenter.nodes, nodes)
    torch.testing.assert_close(result.barycenter.structure, structure)
    assert result.objective_history[-1] == pytest.approx(objective)


def test_barycenter_recovers_shuffled_copies():
    planted = random_graph(8, 3)
    graphs = [shuffled(planted, seed)[0] for seed in range(4)]
    result = gm.fused_gromov_wasserstein_barycenter(graphs, temperature=0.005)
    assert float(gm.sga_distance(result.barycenter, planted)) < 1e-3
    hard = gm.estimate_barycenter(graphs)
    assert float(gm.sga_distance(result.barycenter, hard.barycenter)) < 1e-3


def test_weight_on_one_graph_and_heat():
    graphs = [random_graph(5, seed) for seed in range(3)]
    alone = gm.fused_gromov_wasserstein_barycenter(graphs, weights=[0.0, 1.0, 0.0], temperature=0.005)
    assert float(gm.sga_distance(alone.barycenter, graphs[1])) < 1e-3
    hot = gm.fused_gromov_wasserstein_barycenter(graphs, temperature=1e4)
    mean = torch.stack([graph.nodes.mean(0) for graph in graphs]).mean(0)
    torch.testing.assert_close(hot.barycenter.nodes, mean.expand(5, -1), atol=1e-2, rtol=0)


def test_seeds_starts_and_sizes():
    graphs = [random_graph(size, size) for size in (3, 5)]
    first, second = (gm.fused_gromov_wasserstein_barycenter(graphs, 4, seed=2) for _ in range(2))
    assert torch.equal(first.barycenter.nodes, second.barycenter.nodes)
    assert gm.fused_gromov_wasserstein_barycenter(graphs).barycenter.structure.shape == (5, 5)
    larger = gm.fused_gromov_wasserstein_barycenter(graphs, 7)
    assert [coupling.shape for coupling in larger.couplings] == [(3, 7), (5, 7)]
    assert gm.fused_gromov_wasserstein_barycenter(graphs, 1).couplings[0].flatten().tolist() == pytest.approx(
        [1 / 3] * 3
    )
    cut = gm.fused_gromov_wasserstein_barycenter(graphs, 4, temperature=0.3, max_iterations=1)
    assert len(cut.objective_history) == 1
    assert not cut.converged


def test_gradients_reach_the_features():
    graph = random_graph(4, 1)
    nodes = graph.nodes.clone().requires_grad_()
    graphs = [gm.StructuredGraph(nodes, graph.structure), random_graph(3, 2)]
    result = gm.fused_gromov_wasserstein_barycenter(graphs, 4)
    result.barycenter.nodes[2, 0].backward()
    expected = torch.zeros(4, 3, dtype=torch.float64)
    expected[:, 0] = 0.5 * result.couplings[0][:, 2] / 0.25
    torch.testing.assert_close(nodes.grad, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_types(dtype: torch.dtype):
    graphs = [gm.knn_graph(torch.tensor([[0.0], [1.0], [3.0]]).to(dtype), k=1) for _ in range(2)]
    result = gm.fused_gromov_wasserstein_barycenter(graphs)
    assert result.barycenter.nodes.dtype == result.couplings[0].dtype == dtype
    assert gm.fused_gromov_wasserstein(*graphs).coupling.dtype == dtype


def test_transport_plan_with_padding():
    generator = torch.Generator().manual_seed(0)
    exponents = 5 * torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    rows = torch.stack([mass_of(4, 1), torch.nn.functional.pad(mass_of(3, 2), (0, 1))])
    columns = torch.stack([torch.nn.functional.pad(mass_of(4, 3), (0, 1)), mass_of(5, 4)])
    plan, potentials = transport_plan(exponents, rows, columns, torch.zeros_like(columns), 1000, 1e-12)
    torch.testing.assert_close(plan.sum(2), rows)
    torch.testing.assert_close(plan.sum(1), columns)
    for place in range(2):
        shape = int((rows[place] > 0).sum()), int((columns[place] > 0).sum())
        costs = -exponents[place, : shape[0], : shape[1]].numpy()
        alone = ot.sinkhorn(
            rows[place, : shape[0]].numpy(),
            columns[place, : shape[1]].numpy(),
            costs,
            1.0,
            method="sinkhorn_log",
            numItermax=100_000,
            stopThr=1e-13,
        )
        np.testing.assert_allclose(plan[place, : shape[0], : shape[1]].numpy(), alone, atol=1e-9)
    again, _ = transport_plan(exponents, rows, columns, potentials, 10, 1e-12)
    torch.testing.assert_close(again, plan)


def bad_calls() -> dict:
    graph = random_graph(3, 0)
    soft, mean = gm.fused_gromov_wasserstein, gm.fused_gromov_wasserstein_barycenter
    return {
        "kind": lambda: soft(graph, graph.nodes),
        "features": lambda: soft(graph, random_graph(3, 0, dim=2)),
        "weight": lambda: soft(graph, graph, structure_weight=2.0),
        "temperature": lambda: soft(graph, graph, temperature=0.0),
        "iterations": lambda: soft(graph, graph, max_iterations=0),
        "tolerance": lambda: soft(graph, graph, tolerance=0.0),
        "masses": lambda: soft(graph, graph, masses=(torch.ones(3),)),
        "masses shape": lambda: soft(graph, graph, masses=(torch.ones(3), torch.ones(2))),
        "no mass": lambda: soft(graph, graph, masses=(torch.ones(3), torch.tensor([0.0, 1.0, 1.0]))),
        "no nodes": lambda: soft(graph, random_graph(0, 0)),
        "graphs": lambda: mean([]),
        "size": lambda: mean([graph], size=0),
        "weights": lambda: mean([graph], weights=[-1.0]),
        "barycenter masses": lambda: mean([graph], barycenter_masses=torch.ones(2)),
        "start": lambda: mean([graph], start=random_graph(4, 0)),
    }


@pytest.mark.parametrize("name", bad_calls())
def test_errors_say_what_to_do(name: str):
    with pytest.raises((TypeError, ValueError), match=ERROR_FORM):
        bad_calls()[name]()
