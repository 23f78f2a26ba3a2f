"""The modules: matching as a layer, graph convolutions, message passing."""

from __future__ import annotations

import pytest
import torch

import graphmatch as gm

ERROR_FORM = r"^\S.*: .+ must .+; got .+\. \S.*\.$"


def case(rng: torch.Generator, batch: int = 2, nodes: int = 5) -> tuple[torch.Tensor, ...]:
    """Unary costs, quadratic costs and shared edges."""
    edges = gm.knn_graph(torch.randn(nodes, 2, generator=rng), 2).edges
    unary = torch.randn(batch, nodes, nodes, generator=rng)
    quadratic = torch.randn(batch, len(edges), len(edges), generator=rng)
    return unary, quadratic, edges, edges.flip(1)


def test_the_layer_returns_what_the_solver_finds(rng: torch.Generator):
    unary, quadratic, edges1, edges2 = case(rng)
    layer = gm.MatchingLayer(gm.BruteForce(), gm.BlackBox())
    matching, paid_pairs = layer(unary, quadratic, edges1, edges2)
    result = gm.solve(gm.LawlerProblem(unary, quadratic, edges1, edges2), gm.BruteForce())
    assert torch.equal(matching, result.matching)
    assert torch.equal(paid_pairs, result.paid_pairs)
    assert layer.result is not None
    assert torch.equal(layer.result.objective, result.objective)
    linear = gm.MatchingLayer(gradient=gm.BlackBox())(unary)
    assert torch.equal(linear, gm.solve(gm.LinearProblem(unary)).matching)


def test_unmatched_nodes_are_allowed_where_they_have_a_cost(rng: torch.Generator):
    unary = torch.rand(1, 4, 4, generator=rng)
    assert gm.MatchingLayer(gradient=gm.BlackBox(), unmatched_cost=-5.0)(unary).sum() == 0
    assert gm.MatchingLayer(gradient=gm.BlackBox())(unary).sum() == 4


def test_training_draws_new_noise_and_evaluation_none(rng: torch.Generator):
    unary = 0.1 * torch.rand(1, 8, 8, generator=rng)
    layer = gm.MatchingLayer(gradient=gm.IMLE(noise_scale=1.0))
    assert not torch.equal(layer(unary), layer(unary))
    assert layer.calls == 2
    layer.eval()
    assert torch.equal(layer(unary), gm.solve(gm.LinearProblem(unary)).matching)
    assert layer.calls == 2


def test_noise_continues_where_the_state_dict_stopped(rng: torch.Generator):
    unary = 0.1 * torch.rand(1, 8, 8, generator=rng)
    layer = gm.MatchingLayer(gradient=gm.IMLE(noise_scale=1.0))
    layer(unary)
    other = gm.MatchingLayer(gradient=gm.IMLE(noise_scale=1.0))
    other.load_state_dict(layer.state_dict())
    assert torch.equal(layer(unary), other(unary))


def test_samples_are_averaged(rng: torch.Generator):
    unary, quadratic, edges1, edges2 = case(rng)
    layer = gm.MatchingLayer(gradient=gm.IMLE(samples=16, noise_scale=2.0))
    matching, paid_pairs = layer(unary, quadratic, edges1, edges2)
    torch.testing.assert_close(matching.sum(2), torch.ones(2, 5))
    assert ((matching > 0) & (matching < 1)).any()
    assert torch.equal((16 * paid_pairs).round(), 16 * paid_pairs)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_quadratic_arguments_come_together(rng: torch.Generator, missing: int):
    unary, *quadratic = case(rng)
    quadratic[missing] = None
    with pytest.raises(ValueError, match=ERROR_FORM):
        gm.MatchingLayer()(unary, *quadratic)


def test_convolutions_gather_from_the_heads_of_a_nodes_own_edges(rng: torch.Generator):
    layer = gm.GraphConvolution(2, 3)
    nodes = torch.randn(4, 2, generator=rng)
    edges = torch.tensor([[0, 1], [0, 2], [3, 0]])
    relation, root = layer.lin_rel, layer.lin_root
    strongest = torch.stack([torch.maximum(nodes[1], nodes[2]), torch.zeros(2), torch.zeros(2), nodes[0]])
    torch.testing.assert_close(layer(nodes, edges), relation(strongest) + root(nodes))
    batched = layer(nodes.expand(2, 4, 2), edges.expand(2, 3, 2))
    torch.testing.assert_close(batched[1], layer(nodes, edges))


def test_convolutions_have_the_parameters_of_pyg_graph_conv():
    names = {name: tuple(value.shape) for name, value in gm.MessagePassing(4).state_dict().items()}
    one = {"lin_rel.weight": (4, 4), "lin_rel.bias": (4,), "lin_root.weight": (4, 4)}
    assert names == {f"conv{place}.{name}": shape for place in (1, 2) for name, shape in one.items()}


@pytest.mark.parametrize("nodes", [0, 1, 3])
def test_message_passing_takes_graphs_of_any_size(nodes: int):
    graph = gm.knn_graph(torch.randn(nodes, 4), 5)
    assert gm.MessagePassing(4)(graph.nodes, graph.edges).shape == (nodes, 4)


def test_residual_message_passing_adds_to_the_nodes(rng: torch.Generator):
    graph = gm.knn_graph(torch.randn(6, 4, generator=rng), 2)
    residual = gm.MessagePassing(4).eval()
    plain = gm.MessagePassing(4, residual=False).eval()
    plain.load_state_dict(residual.state_dict())
    torch.testing.assert_close(residual(graph.nodes, graph.edges), graph.nodes + plain(graph.nodes, graph.edges))
