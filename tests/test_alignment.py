"""The alignment of several views: sizes, options, gradients, and that it teaches."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from torch import Tensor, nn

import graphmatch as gm

ERROR_FORM = r"^\S.*: .+ must .+; got .+\. \S.*\.$"
RECIPES = {
    "default": {},
    "mean": {"barycenter": "mean"},
    "blackbox": {"gradient": gm.BlackBox()},
    "replacing": {"residual": False},
    "legacy": {"legacy": True},
}
every_recipe = pytest.mark.parametrize("options", RECIPES.values(), ids=RECIPES)


def random_views(count: int, samples: int, dim: int = 6, seed: int = 0, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(samples, dim, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for _ in range(count)
    ]


def noisy_copies(samples: int = 12, dim: int = 6, noise: float = 0.01) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(samples, dim, generator=generator)
    return [points + noise * torch.randn(samples, dim, generator=generator) for _ in range(3)]


@every_recipe
@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("samples", [0, 1, 2, 3, 5, 6, 9])
def test_any_number_of_samples(options: dict, count: int, samples: int):
    torch.manual_seed(0)
    views = random_views(count, samples)
    alignment = gm.BarycenterAlignment(6, k=5, **options)
    details = alignment.details(*views)
    assert details.loss.shape == ()
    assert 0 <= details.loss.item() <= 2
    details.loss.backward()
    for view in views:
        assert view.grad.shape == view.shape
        assert view.grad.isfinite().all()
    assert details.gap >= 0
    for measure in (details.matching_accuracy, details.retrieval):
        assert measure.shape == ()
        assert not measure.requires_grad
        assert measure.isnan() if samples == 0 else 0 <= measure <= 1
    if samples <= 1:
        assert details.loss.item() == 0


@every_recipe
def test_the_loss_of_details_is_the_loss(options: dict):
    views = random_views(3, 8)
    alignment = gm.BarycenterAlignment(6, k=3, **options)
    losses = []
    for call in (lambda each: each(*views), lambda each: each.details(*views).loss):
        torch.manual_seed(0)
        losses.append(call(copy.deepcopy(alignment)).item())
    assert losses[0] == losses[1]


@pytest.mark.parametrize("options", [{}, {"barycenter": "mean"}], ids=["leave_one_out", "mean"])
def test_views_that_agree_are_matched(options: dict):
    alignment = gm.BarycenterAlignment(6, k=3, **options).eval()
    details = alignment.details(*noisy_copies())
    assert details.loss.item() == 0
    assert details.matching_accuracy.item() == details.retrieval.item() == 1


def test_shuffled_views_are_not_matched():
    views = noisy_copies()
    views[1] = views[1].roll(1, 0)
    details = gm.BarycenterAlignment(6, k=3).eval().details(*views)
    assert details.loss.item() > 0.5
    assert details.matching_accuracy.item() < 0.8
    # Two of the six ordered pairs of views agree.
    assert details.retrieval.item() == pytest.approx(1 / 3)


def test_loss_and_accuracy_count_the_same_errors():
    details = gm.BarycenterAlignment(6, k=3).eval().details(*random_views(3, 10))
    assert details.loss.item() == pytest.approx(2 * (1 - details.matching_accuracy.item()), abs=1e-6)


def test_a_view_hides_in_the_mean_barycenter_and_not_in_the_others():
    accuracy = {}
    for barycenter in ("leave_one_out", "mean"):
        torch.manual_seed(0)
        alignment = gm.BarycenterAlignment(32, barycenter=barycenter).eval()
        accuracy[barycenter] = alignment.details(*random_views(3, 32, dim=32)).matching_accuracy.item()
    assert accuracy["leave_one_out"] < 0.2
    assert accuracy["mean"] > 0.8


def test_leaving_one_out_survives_views_of_very_different_size():
    # With two views each is the barycenter of the other, whatever the rounding of their sum.
    first, second, _ = noisy_copies()
    details = gm.BarycenterAlignment(6, k=3).eval().details(first, 1e9 * second)
    assert details.loss.item() == 0


@pytest.mark.parametrize("barycenter", ["leave_one_out", "mean"])
def test_equal_samples_may_take_each_other_s_place(barycenter: str):
    views = noisy_copies()
    views[0][3], views[0][7] = views[0][4].clone(), views[0][4].clone()  # one text, three images
    alignment = gm.BarycenterAlignment(6, k=3, barycenter=barycenter).eval()
    details = alignment.details(*views)
    assert details.loss.item() == 0
    assert details.matching_accuracy.item() == 1

    all_equal = [view[:1].expand(12, -1) for view in views]
    details = alignment.details(*all_equal)
    assert details.loss.isfinite()
    assert details.loss.item() == 0


@every_recipe
def test_gradients_reach_every_view_and_every_parameter(options: dict):
    torch.manual_seed(0)
    views = random_views(3, 16)
    alignment = gm.BarycenterAlignment(6, k=3, **options)
    alignment(*views).backward()
    assert not alignment.zero_gradient
    for view in views:
        assert view.grad.abs().max() > 0
    for name, parameter in alignment.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_zero_gradient_reports_the_silent_steps():
    alignment = gm.BarycenterAlignment(6, k=3, gradient=gm.BlackBox(step=1e-3))
    views = [view.requires_grad_() for view in noisy_copies()]
    loss = alignment(*views)
    assert not alignment.zero_gradient, "nothing is known before the backward pass"
    loss.backward()
    assert alignment.zero_gradient
    assert alignment.zero_gradient.shape == ()
    alignment(*random_views(3, 12)).backward()
    torch.manual_seed(0)
    noisy = gm.BarycenterAlignment(6, k=3, gradient=gm.IMLE(step=3.0, noise_scale=1.0))
    noisy(*views).backward()
    assert not noisy.zero_gradient, "noise keeps matchings that are barely right teaching"


def test_evaluation_is_deterministic_and_training_is_noisy():
    views = random_views(3, 12)
    alignment = gm.BarycenterAlignment(6, k=3, dropout=0.0)
    training = {alignment(*views).item() for _ in range(8)}
    assert len(training) > 1
    alignment.eval()
    assert len({alignment(*views).item() for _ in range(4)}) == 1


def test_the_order_of_samples_does_not_matter():
    views = random_views(3, 12)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    alignment = gm.BarycenterAlignment(6, k=3).eval()
    one, other = alignment.details(*views), alignment.details(*(view[order] for view in views))
    assert one.loss.item() == pytest.approx(other.loss.item(), abs=1e-6)
    assert one.retrieval.item() == pytest.approx(other.retrieval.item(), abs=1e-6)


@every_recipe
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("weights", [torch.bfloat16, torch.float32, torch.float64])
def test_any_floating_type_of_views_and_weights(options: dict, dtype: torch.dtype, weights: torch.dtype):
    torch.manual_seed(0)
    views = random_views(3, 9, dtype=dtype)
    alignment = gm.BarycenterAlignment(6, k=3, **options).to(weights)
    loss = alignment(*views)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    loss.backward()
    for view in views:
        assert view.grad.dtype == dtype
        assert view.grad.isfinite().all()
    assert {parameter.dtype for parameter in alignment.parameters()} == {weights}, "the module keeps its type"


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_autocast_does_not_reach_the_solver(half: torch.dtype):
    views = random_views(3, 12)
    alignment = gm.BarycenterAlignment(6, k=3).eval()
    expected = alignment(*views)
    with torch.autocast("cpu", dtype=half):
        assert torch.equal(alignment(*views), expected)
    assert alignment.layer.result.problem.unary_costs.dtype == torch.float32


def test_mixed_types_of_views():
    views = random_views(3, 9)
    loss = gm.BarycenterAlignment(6)(views[0], views[1].double(), views[2].bfloat16())
    assert loss.dtype == torch.float32
    loss.backward()


def test_the_seed_of_the_noise_travels_with_the_state():
    views = random_views(3, 12)
    alignment = gm.BarycenterAlignment(6, k=3, dropout=0.0)
    alignment(*views)
    resumed = gm.BarycenterAlignment(6, k=3, dropout=0.0)
    resumed.load_state_dict(alignment.state_dict())
    assert [resumed(*views).item() for _ in range(4)] == [alignment(*views).item() for _ in range(4)]


def test_any_solver_and_estimator():
    views = random_views(3, 4)
    options = {"gradient": gm.BlackBox(), "dropout": 0.0}
    torch.manual_seed(0)
    exact = gm.BarycenterAlignment(6, k=2, solver=gm.BruteForce(), **options)
    ascent = gm.BarycenterAlignment(6, k=2, **options)
    ascent.load_state_dict(exact.state_dict())
    one, other = exact.details(*views), ascent.details(*views)
    assert one.gap.item() < 1e-14
    assert one.loss.item() == other.loss.item()
    certified = ascent.layer.result.lower_bound <= exact.layer.result.objective + 1e-9
    assert certified.all()


@pytest.mark.parametrize(
    ("call", "error", "argument"),
    [
        (lambda: gm.BarycenterAlignment(0), ValueError, "dim"),
        (lambda: gm.BarycenterAlignment(4, k=0), ValueError, "k"),
        (lambda: gm.BarycenterAlignment(4, k=2.5), TypeError, "k"),
        (lambda: gm.BarycenterAlignment(4.0), TypeError, "dim"),
        (lambda: gm.BarycenterAlignment(4, barycenter="median"), ValueError, "barycenter"),
        (lambda: gm.BarycenterAlignment(4, gradient=gm.BlackBox(), legacy=True), ValueError, "solver and gradient"),
        (lambda: gm.BarycenterAlignment(4)(), ValueError, "views"),
        (lambda: gm.BarycenterAlignment(4)(torch.zeros(3, 4)), ValueError, "views"),
        (lambda: gm.BarycenterAlignment(4)(torch.zeros(3, 4), [[0.0]]), TypeError, "view 1"),
        (lambda: gm.BarycenterAlignment(4)(torch.zeros(3, 4), torch.zeros(1, 3, 4)), ValueError, "view 1"),
        (lambda: gm.BarycenterAlignment(4)(torch.zeros(3, 4), torch.zeros(2, 4)), ValueError, "view 1"),
        (lambda: gm.BarycenterAlignment(4)(torch.zeros(3, 5), torch.zeros(3, 5)), ValueError, "view 0"),
        (lambda: gm.BarycenterAlignment(4)(torch.zeros(3, 4), torch.zeros(3, 4).long()), TypeError, "view 1"),
        (lambda: gm.BarycenterAlignment(4)(torch.zeros(3, 4), torch.zeros(3, 4) / 0), ValueError, "view 1"),
        (lambda: gm.BarycenterAlignment(4)(torch.zeros(3, 4), torch.ones(3, 4) / 0), ValueError, "view 1"),
    ],
)
def test_bad_input_gives_one_clear_sentence(call: Callable, error: type[Exception], argument: str):
    with pytest.raises(error, match=ERROR_FORM) as caught:
        call()
    assert str(caught.value).startswith(f"BarycenterAlignment: {argument} must")


@pytest.mark.parametrize("kind", [gm.BarycenterAlignment, gm.PairwiseAlignment])
def test_views_whose_squares_float32_cannot_add_up_are_refused(kind: type):
    options = {"dropout": 0.0, "gradient": gm.BlackBox()}
    alignment = kind(6, **options)
    views = random_views(3, 8)
    loss = alignment(*(view * 2.0**30 for view in views))
    assert loss > 0
    assert alignment(*(view * 2.0**50 for view in views)) == loss
    refused = rf"^{kind.__name__}: view 1 must hold finite costs of at most 1e\+16; got .*, or scale all views alike\.$"
    for large in (views[1] * 1e20, views[1].bfloat16() * 1e20, views[1].double() * 1e50):
        with pytest.raises(ValueError, match=refused):
            alignment(views[0], large, views[2])
    assert kind(6, **options).double()(*(view.double() * 1e50 for view in views)) > 0


def test_each_view_is_matched_with_the_mean_of_the_others_or_of_all():
    inputs = noisy_copies(10, dim=8, noise=2.0)
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


def test_samples_with_the_same_text_may_take_each_others_place():
    image, text, extended = noisy_copies(6, dim=8, noise=0.01)
    alignment = gm.BarycenterAlignment(8).eval()
    same = torch.tensor([0, 0, 0, 3, 4, 5])
    # Samples 0 to 2 have one text, and their images and extended texts are interchanged.
    swapped = torch.tensor([1, 2, 0, 3, 4, 5])
    details = alignment.details(image[same], text[same], extended[same][swapped])
    assert details.loss == 0
    assert details.matching_accuracy == 1
    # A swap among samples that differ is still wrong.
    assert alignment(image[same], text[same], extended[same][torch.tensor([0, 1, 2, 4, 3, 5])]) > 0


def test_the_solver_sees_single_precision_under_autocast():
    seen = []

    class Spy:
        def solve(self, problem: gm.LawlerProblem) -> gm.MatchResult:
            seen.append(problem.unary_costs.dtype)
            return gm.DualAscent().solve(problem)

    alignment = gm.BarycenterAlignment(8, solver=Spy())
    with torch.autocast("cpu", torch.bfloat16):
        inputs = [nn.Linear(8, 8)(view) for view in noisy_copies(6, dim=8)]
        assert inputs[0].dtype == torch.bfloat16
        alignment(*inputs).backward()
    assert set(seen) == {torch.float32}


def test_the_released_recipe_differs_where_it_says_so():
    inputs = noisy_copies(7, dim=8)
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


class ProjectedPoints:
    """Three random linear projections of noisy copies of the same random points."""

    def __init__(self, seed: int, length: int = 16, projected: int = 32, noise: float = 0.3) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.length, self.noise = length, noise
        self.projections = [self.normal(length, projected) / length**0.5 for _ in range(3)]

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def draw(self, count: int) -> list[Tensor]:
        points = self.normal(count, self.length)
        return [(points + self.noise * self.normal(count, self.length)) @ projection for projection in self.projections]


def trained_retrieval(steps: int, **options: object) -> tuple[float, float]:
    """Retrieval among 32 unseen points before and after training linear heads with the alignment loss alone."""
    views = ProjectedPoints(seed=0)
    unseen = [views.draw(32) for _ in range(8)]
    torch.manual_seed(0)
    heads = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))
    alignment = gm.BarycenterAlignment(32, **options)
    optimizer = torch.optim.Adam([*heads.parameters(), *alignment.parameters()], lr=1e-2)

    def project(points: list[Tensor]) -> list[Tensor]:
        return [head(view) for head, view in zip(heads, points, strict=True)]

    @torch.no_grad()
    def retrieval() -> float:
        pairs = [pair for points in unseen for pair in permutations(project(points), 2)]
        return torch.stack([gm.retrieval_accuracy(*pair) for pair in pairs]).mean().item()

    before = retrieval()
    for _ in range(steps):
        loss = alignment(*project(views.draw(16)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return before, retrieval()


def test_the_loss_alone_aligns_unseen_points():
    # The library promises 0.95 within 300 steps.
    before, after = trained_retrieval(150)
    assert before < 0.1
    assert after >= 0.95


def test_leaving_one_out_teaches_more_than_the_mean():
    # Without noise the difference is plain: a matching that is right from the start is silent.
    _, leave_one_out = trained_retrieval(100, gradient=gm.BlackBox())
    _, mean = trained_retrieval(100, gradient=gm.BlackBox(), barycenter="mean")
    assert leave_one_out > mean + 0.2
