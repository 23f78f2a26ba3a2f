"""The alignment of several views with their barycenter."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import graphmatch as gm

ERROR_FORM = r"^\S.*: .+ must .+; got .+\. \S.*\.$"


def views(rng: torch.Generator, nodes: int, dim: int = 8, count: int = 3, noise: float = 0.05) -> list[Tensor]:
    """Noisy copies of the same points."""
    points = torch.randn(nodes, dim, generator=rng)
    return [(points + noise * torch.randn(nodes, dim, generator=rng)).requires_grad_() for _ in range(count)]


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("nodes", [0, 1, 2, 3, 7])
def test_any_number_of_samples(rng: torch.Generator, nodes: int, legacy: bool):
    inputs = views(rng, nodes)
    details = gm.BarycenterAlignment(8, k=5, legacy=legacy).details(*inputs)
    details.loss.backward()
    assert details.loss.shape == ()
    assert 0 <= details.loss <= 2
    assert all(view.grad is not None and view.grad.isfinite().all() for view in inputs)
    if nodes < 2 and not legacy:
        assert details.loss == 0


@pytest.mark.parametrize("count", [2, 4])
def test_any_number_of_views(rng: torch.Generator, count: int):
    assert gm.BarycenterAlignment(8).eval()(*views(rng, 6, count=count)).item() == 0


def test_equal_views_match_and_shuffled_ones_do_not(rng: torch.Generator):
    alignment = gm.BarycenterAlignment(8).eval()
    image, text, extended = views(rng, 12, noise=0.01)
    right = alignment.details(image, text, extended)
    assert right.loss == 0
    assert right.matching_accuracy == right.retrieval == 1
    wrong = alignment.details(image, text.roll(1, 0), extended.roll(2, 0))
    assert wrong.loss > 1
    assert wrong.matching_accuracy < 0.5
    assert wrong.retrieval < 0.5


def test_each_view_is_matched_with_the_mean_of_the_others_or_of_all(rng: torch.Generator):
    inputs = views(rng, 10, noise=2.0)
    for barycenter, centres in [
        ("leave_one_out", [(inputs[1] + inputs[2]) / 2, (inputs[0] + inputs[2]) / 2, (inputs[0] + inputs[1]) / 2]),
        ("mean", [sum(inputs) / 3] * 3),
    ]:
        alignment = gm.BarycenterAlignment(8, k=3, barycenter=barycenter).eval()
        passing = alignment.message_passing
        right = 0
        for view, centre in zip(inputs, centres, strict=True):
            graphs = [gm.knn_graph(points, 3) for points in (view, centre)]
            nodes = [passing(graph.nodes, graph.edges) for graph in graphs]
            unary = -gm.cosine_affinity(*nodes)
            features = [gm.edge_features(node, graph.edges) for node, graph in zip(nodes, graphs, strict=True)]
            quadratic = -0.5 * features[0] @ features[1].T
            problem = gm.LawlerProblem(unary[None], quadratic[None], graphs[0].edges, graphs[1].edges)
            right += int(gm.solve(problem, alignment.layer.solver).assignment.eq(torch.arange(10)).sum())
        assert alignment.details(*inputs).matching_accuracy.item() == pytest.approx(right / 30)


def test_gradients_reach_every_view_and_the_message_passing(rng: torch.Generator):
    inputs = views(rng, 8, noise=2.0)
    alignment = gm.BarycenterAlignment(8)
    alignment(*inputs).backward()
    assert not alignment.zero_gradient
    assert all(view.grad is not None and view.grad.ne(0).any() for view in inputs)
    assert all(value.grad is not None and value.grad.ne(0).any() for value in alignment.parameters())


def test_a_step_without_any_gradient_is_noted(rng: torch.Generator):
    inputs = views(rng, 8, noise=1e-4)
    alignment = gm.BarycenterAlignment(8, gradient=gm.BlackBox(step=1e-3))
    loss = alignment(*inputs)
    loss.backward()
    assert loss == 0
    assert alignment.zero_gradient


def test_samples_with_the_same_text_may_take_each_others_place(rng: torch.Generator):
    image, text, extended = (view.detach() for view in views(rng, 6, noise=0.01))
    alignment = gm.BarycenterAlignment(8).eval()
    same = torch.tensor([0, 0, 0, 3, 4, 5])
    # Samples 0 to 2 have one text, and their images and extended texts are interchanged.
    swapped = torch.tensor([1, 2, 0, 3, 4, 5])
    details = alignment.details(image[same], text[same], extended[same][swapped])
    assert details.loss == 0
    assert details.matching_accuracy == 1
    # A swap among samples that differ is still wrong.
    assert alignment(image[same], text[same], extended[same][torch.tensor([0, 1, 2, 4, 3, 5])]) > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_views_and_models_of_other_types(rng: torch.Generator, dtype: torch.dtype):
    inputs = [view.detach().to(dtype).requires_grad_() for view in views(rng, 6, noise=1.0)]
    for alignment in (gm.BarycenterAlignment(8), gm.BarycenterAlignment(8).to(dtype)):
        loss = alignment(*inputs)
        assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        loss.backward()
        assert all(view.grad is not None and view.grad.dtype == dtype for view in inputs)
        assert all(view.grad.isfinite().all() for view in inputs)


def test_the_solver_sees_single_precision_under_autocast(rng: torch.Generator):
    seen = []

    class Spy:
        def solve(self, problem: gm.LawlerProblem) -> gm.MatchResult:
            seen.append(problem.unary_costs.dtype)
            return gm.DualAscent().solve(problem)

    alignment = gm.BarycenterAlignment(8, solver=Spy())
    with torch.autocast("cpu", torch.bfloat16):
        inputs = [nn.Linear(8, 8)(view) for view in views(rng, 6)]
        assert inputs[0].dtype == torch.bfloat16
        alignment(*inputs).backward()
    assert set(seen) == {torch.float32}


def test_evaluation_is_deterministic_and_training_is_not(rng: torch.Generator):
    inputs = views(rng, 12, noise=1.0)
    alignment = gm.BarycenterAlignment(8)
    assert len({alignment(*inputs).item() for _ in range(8)}) > 1
    alignment.eval()
    assert len({alignment(*inputs).item() for _ in range(3)}) == 1


def test_the_released_recipe_differs_where_it_says_so(rng: torch.Generator):
    inputs = views(rng, 7)
    alignment = gm.BarycenterAlignment(8, legacy=True)
    alignment(*inputs)
    assert alignment.released is not None
    result = alignment.released.result
    assert result is not None
    problem = result.problem
    assert isinstance(problem, gm.LawlerProblem)
    assert problem.batch_size == 6  # three views, both directions
    assert torch.equal(problem.edges1, problem.edges2)  # the right graph reuses the left one's edges
    assert problem.unmatched_cost == 0
    assert not alignment.message_passing.residual


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: gm.BarycenterAlignment(0), ValueError),
        (lambda: gm.BarycenterAlignment(4, k=0), ValueError),
        (lambda: gm.BarycenterAlignment(4, barycenter="median"), ValueError),
        (lambda: gm.BarycenterAlignment(4)(torch.zeros(3, 4)), ValueError),
        (lambda: gm.BarycenterAlignment(4)(torch.zeros(3, 4), torch.zeros(2, 4)), ValueError),
        (lambda: gm.BarycenterAlignment(4)(torch.zeros(3, 5), torch.zeros(3, 5)), ValueError),
        (lambda: gm.BarycenterAlignment(4)(torch.zeros(3), torch.zeros(3)), ValueError),
        (lambda: gm.BarycenterAlignment(4)([[0.0] * 4], torch.zeros(1, 4)), TypeError),
        (lambda: gm.BarycenterAlignment(4)(torch.zeros(3, 4).long(), torch.zeros(3, 4)), TypeError),
        (lambda: gm.BarycenterAlignment(4)(torch.full((3, 4), math.nan), torch.zeros(3, 4)), ValueError),
    ],
)
def test_errors_say_what_to_do(call, error: type[Exception]):
    with pytest.raises(error, match=ERROR_FORM):
        call()


def learned_retrieval(barycenter: str, gradient: gm.GradientEstimator | None, steps: int) -> tuple[float, float]:
    """Retrieval among 64 unseen points before and after training heads on the alignment loss alone."""
    rng = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    projections = [torch.randn(16, 32, generator=rng) / 4 for _ in range(3)]
    heads = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))
    alignment = gm.BarycenterAlignment(32, barycenter=barycenter, gradient=gradient)
    optimizer = torch.optim.Adam([*heads.parameters(), *alignment.parameters()], lr=1e-2)

    def nodes(count: int) -> list[Tensor]:
        points = torch.randn(count, 16, generator=rng)
        noisy = [points + 0.3 * torch.randn(count, 16, generator=rng) for _ in range(3)]
        return [head(view @ projection) for head, view, projection in zip(heads, noisy, projections, strict=True)]

    def retrieval() -> float:
        with torch.no_grad():
            unseen = nodes(64)
        pairs = [(a, b) for a in range(3) for b in range(3) if a != b]
        return sum(float(gm.retrieval_accuracy(unseen[a], unseen[b])) for a, b in pairs) / len(pairs)

    before = retrieval()
    for _ in range(steps):
        optimizer.zero_grad()
        alignment(*nodes(32)).backward()
        optimizer.step()
    return before, retrieval()


def test_the_loss_alone_teaches_retrieval_of_unseen_points():
    before, after = learned_retrieval("leave_one_out", None, steps=100)
    assert before < 0.1
    assert after >= 0.95


def test_without_noise_leaving_the_view_out_of_its_barycenter_teaches_more():
    _, leave_one_out = learned_retrieval("leave_one_out", gm.BlackBox(), steps=60)
    _, mean = learned_retrieval("mean", gm.BlackBox(), steps=60)
    assert leave_one_out > mean + 0.2
