"""Matching as a layer, and message passing."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import graphmatch as gm

ERROR_FORM = r"^\S.*: .+ must .+; got .+\. \S.*\.$"


@pytest.fixture
def costs(rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Costs of 3 problems with 5 nodes and 7 edges on either side."""
    edges = [torch.randint(5, (3, 7, 2), generator=rng) for _ in range(2)]
    return torch.randn(3, 5, 5, generator=rng), torch.randn(3, 7, 7, generator=rng), *edges


def test_evaluation_returns_the_solution_without_noise(costs: tuple):
    expected = gm.solve(gm.LawlerProblem(*costs))
    for gradient in (gm.BlackBox(), gm.IMLE(samples=4), gm.IMLE(samples=4, symmetric=False)):
        layer = gm.MatchingLayer(gradient=gradient).eval()
        for _ in range(2):
            matching, paid_pairs = layer(*costs)
            assert torch.equal(matching, expected.matching)
            assert torch.equal(paid_pairs, expected.paid_pairs)
        assert layer.calls == 0
        assert torch.equal(layer.result.objective, expected.objective)


def test_linear_costs_alone_give_the_matching_alone(costs: tuple):
    matching = gm.MatchingLayer(gradient=gm.BlackBox())(costs[0])
    assert torch.equal(matching, gm.solve(gm.LinearProblem(costs[0])).matching)


def test_training_returns_means_over_noisy_matchings(costs: tuple):
    layer = gm.MatchingLayer(gradient=gm.IMLE(samples=8, noise_scale=1.0))
    matching, paid_pairs = layer(*costs)
    assert torch.equal(8 * matching, (8 * matching).round())
    torch.testing.assert_close(matching.sum(1), torch.ones(3, 5))
    torch.testing.assert_close(matching.sum(2), torch.ones(3, 5))
    assert 0 < matching.max() <= 1
    assert ((matching > 0) & (matching < 1)).any(), "eight draws never disagree: there is no noise"
    assert paid_pairs.shape == (3, 7, 7)
    assert layer.result.assignment.shape == (3, 5), "the result is that without noise"
    assert layer.samples.gap.shape == (8, 3)


def test_more_noise_strays_further_from_the_solution(costs: tuple):
    best = gm.solve(gm.LawlerProblem(*costs)).matching
    kept = []
    for scale in (1e-6, 0.3, 3.0):
        matching, _ = gm.MatchingLayer(gradient=gm.IMLE(samples=64, noise_scale=scale))(*costs)
        kept.append((matching * best).sum().item())
    assert kept[0] == 15
    assert kept[0] > kept[1] > kept[2]


def test_noise_follows_the_state_dict():
    costs = torch.zeros(2, 6, 6)
    layer = gm.MatchingLayer(solver=gm.LAP(), gradient=gm.IMLE(samples=2))
    first = layer(costs)
    state = copy.deepcopy(layer.state_dict())
    second = layer(costs)
    assert not torch.equal(first, second)
    torch.manual_seed(999)
    restored = gm.MatchingLayer(solver=gm.LAP(), gradient=gm.IMLE(samples=2))
    assert torch.equal(restored(costs), first)
    restored.load_state_dict(state)
    assert torch.equal(restored(costs), second)
    other = gm.MatchingLayer(solver=gm.LAP(), gradient=gm.IMLE(samples=2, seed=1))
    assert not torch.equal(other(costs), first)


def test_steps_are_whole_numbers():
    layer = gm.MatchingLayer(gm.LAP(), gm.IMLE(samples=4, noise_scale=1.0))
    costs = torch.rand(2, 5, 5, generator=torch.Generator().manual_seed(0))
    expected = layer(costs, step=3)
    assert not expected.equal(layer(costs, step=4))
    for step in (np.int64(3), torch.tensor(3), torch.tensor(3, dtype=torch.int32)):
        assert expected.equal(layer(costs, step=step))
    for step in (3.5, "3", torch.tensor(3.5)):
        with pytest.raises(TypeError, match=r"^MatchingLayer: step must be a whole number; got "):
            layer(costs, step=step)
    with pytest.raises(ValueError, match=rf"^MatchingLayer: step must fit into 64 bits; got {2**63}\."):
        layer(costs, step=2**63)


def test_the_backward_pass_uses_the_noise_of_its_own_forward_pass():
    costs = torch.zeros(1, 6, 6, requires_grad=True)
    weights = torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(0))
    gradients = []
    for later_calls in (0, 3):
        layer = gm.MatchingLayer(solver=gm.LAP(), gradient=gm.IMLE(samples=2))
        loss = (weights * layer(costs)).sum()
        for _ in range(later_calls):
            layer(costs.detach())
        gradients.append(torch.autograd.grad(loss, costs)[0])
    assert torch.equal(*gradients)


def test_unmatched_nodes(costs: tuple):
    layer = gm.MatchingLayer(gradient=gm.BlackBox(), unmatched_cost=-10.0)
    matching, paid_pairs = layer(*costs)
    assert matching.eq(0).all()
    assert paid_pairs.eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_solutions_come_in_the_type_of_the_costs(costs: tuple, dtype: torch.dtype):
    typed = (costs[0].to(dtype), costs[1].to(dtype), *costs[2:])
    matching, paid_pairs = gm.MatchingLayer()(*typed)
    assert matching.dtype == paid_pairs.dtype == dtype
    assert matching.sum(1).eq(1).all()


def test_edges_shared_by_the_batch(costs: tuple):
    unary, quadratic, edges1, edges2 = costs
    layer = gm.MatchingLayer(gradient=gm.BlackBox())
    flat = layer(unary, quadratic, edges1[0], edges2[0])
    full = layer(unary, quadratic, edges1[:1].expand(3, -1, -1), edges2[:1].expand(3, -1, -1))
    assert torch.equal(flat[0], full[0])


def test_layers_can_be_copied_and_saved(costs: tuple, tmp_path):
    layer = gm.MatchingLayer(gradient=gm.IMLE(samples=2))
    layer(*costs)
    torch.save(layer.state_dict(), tmp_path / "layer.pt")
    fresh = gm.MatchingLayer(gradient=gm.IMLE(samples=2))
    fresh.load_state_dict(torch.load(tmp_path / "layer.pt"))
    assert torch.equal(copy.deepcopy(layer)(*costs)[0], fresh(*costs)[0])


@pytest.mark.parametrize(
    "given",
    [
        {"edges1"},
        {"quadratic_costs"},
        {"quadratic_costs", "edges1"},
        {"quadratic_costs", "edges2"},
        {"edges1", "edges2"},
    ],
)
def test_quadratic_arguments_come_together(costs: tuple, given: set[str]):
    named = dict(zip(("quadratic_costs", "edges1", "edges2"), costs[1:], strict=True))
    with pytest.raises(ValueError, match=ERROR_FORM):
        gm.MatchingLayer()(costs[0], **{name: named[name] for name in given})


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda unary: unary[0], ValueError),
        (lambda unary: unary.long(), TypeError),
        (lambda unary: unary * torch.nan, ValueError),
        (lambda unary: unary.tolist(), TypeError),
    ],
    ids=["shape", "integers", "NaN", "list"],
)
def test_bad_costs(costs: tuple, spoil: Callable, error: type[Exception]):
    with pytest.raises(error, match=ERROR_FORM):
        gm.MatchingLayer()(spoil(costs[0]))


def convolution_by_hand(layer: gm.GraphConvolution, nodes: Tensor, edges: Tensor) -> Tensor:
    rows = []
    for i in range(len(nodes)):
        heads = [int(j) for origin, j in edges.tolist() if origin == i]
        strongest = nodes[heads].amax(0) if heads else torch.zeros_like(nodes[i])
        rows.append(layer.lin_rel(strongest) + layer.lin_root(nodes[i]))
    return torch.stack(rows)


def test_graph_convolution_by_hand(rng: torch.Generator):
    layer = gm.GraphConvolution(4, 3)
    nodes = torch.randn(2, 6, 4, generator=rng) - 1
    edges = torch.randint(6, (2, 9, 2), generator=rng)
    expected = torch.stack([convolution_by_hand(layer, nodes[b], edges[b]) for b in range(2)])
    torch.testing.assert_close(layer(nodes, edges), expected)
    torch.testing.assert_close(layer(nodes[0], edges[0]), expected[0])


@pytest.mark.parametrize("shape", [(7, 4), (3, 7, 4)], ids=str)
def test_equally_many_neighbours_give_the_same_messages_and_gradients(shape: tuple[int, ...], rng: torch.Generator):
    passing = gm.MessagePassing(4, dropout=0.0).double()
    points = torch.randn(shape, generator=rng, dtype=torch.float64)
    edges, weights = gm.knn_graph(points, 3).edges, torch.randn(shape, generator=rng, dtype=torch.float64)

    def outcome(neighbours: int | None) -> list[Tensor]:
        nodes = points.clone().requires_grad_()
        passed = passing(nodes, edges, neighbours)
        return [passed, *torch.autograd.grad((passed * weights).sum(), [nodes, *passing.parameters()])]

    for found, expected in zip(outcome(3), outcome(None), strict=True):
        torch.testing.assert_close(found, expected)


def test_of_equal_neighbours_the_first_gets_the_gradient():
    nodes = torch.tensor([[0.0], [5.0], [5.0]], requires_grad=True)
    edges = gm.knn_graph(nodes, 2).edges
    conv = gm.GraphConvolution(1, 1)
    conv(nodes, edges, 2)[0].sum().backward()
    root, relation = conv.lin_root.weight.item(), conv.lin_rel.weight.item()
    assert nodes.grad is not None
    torch.testing.assert_close(nodes.grad, torch.tensor([[root], [relation], [0.0]]))


def test_neighbours_must_be_those_of_the_edges():
    with pytest.raises(ValueError, match=ERROR_FORM):
        gm.GraphConvolution(4, 4)(torch.zeros(5, 4), torch.zeros(9, 2, dtype=torch.int64), 2)


def test_convolutions_have_the_parameters_of_pyg_graph_conv():
    names = {name: tuple(value.shape) for name, value in gm.MessagePassing(4).state_dict().items()}
    one = {"lin_rel.weight": (4, 4), "lin_rel.bias": (4,), "lin_root.weight": (4, 4)}
    assert names == {f"conv{place}.{name}": shape for place in (1, 2) for name, shape in one.items()}


def test_graph_convolution_is_differentiable(rng: torch.Generator):
    layer = gm.GraphConvolution(3, 2).double()
    nodes = torch.randn(5, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    edges = torch.randint(5, (8, 2), generator=rng)
    assert torch.autograd.gradcheck(lambda each: layer(each, edges), (nodes,))


@pytest.mark.parametrize("weights", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("nodes", [torch.bfloat16, torch.float32, torch.float64])
def test_message_passing_follows_the_type_of_the_nodes(weights: torch.dtype, nodes: torch.dtype):
    layer = gm.MessagePassing(4).to(weights)
    graph = gm.knn_graph(torch.rand(6, 4, dtype=nodes), 2)
    assert layer(graph.nodes, graph.edges).dtype == nodes
    assert next(layer.parameters()).dtype == weights


@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (2, 0, 4), (2, 1, 4)], ids=str)
def test_message_passing_without_edges(shape: tuple[int, ...]):
    edges = torch.zeros(*shape[:-2], 0, 2, dtype=torch.int64)
    assert gm.MessagePassing(4)(torch.rand(shape), edges).shape == shape


def test_message_passing_adds_to_the_nodes_unless_told_otherwise(rng: torch.Generator):
    graph = gm.knn_graph(torch.randn(6, 4, generator=rng), 2)
    residual = gm.MessagePassing(4).eval()
    plain = gm.MessagePassing(4, residual=False).eval()
    plain.load_state_dict(residual.state_dict())
    torch.testing.assert_close(residual(graph.nodes, graph.edges), graph.nodes + plain(graph.nodes, graph.edges))
