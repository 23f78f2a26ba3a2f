"""How alignment objectives are named and built, what they read, and what they refuse."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from exgra_adapter.objectives import OBJECTIVES, BatchViews, Objective, build_objective, objective_options

DIM = 16
ERROR_FORM = r"^\S.*: .+ must .+; got .+\. \S.*\.$"
NEEDS = {
    "infonce": {"answer", "extended"},
    "siglip": {"answer", "extended"},
    "optimal_transport": {"answer", "patches", "tokens"},
    "vlap": {"answer", "extended", "words"},
    "pairwise": {"answer", "extended"},
    "barycenter": {"answer", "extended"},
}


def build(name: str, **options: Any) -> Objective:
    torch.manual_seed(0)
    objective = build_objective(name, DIM, **options)
    assert objective is not None
    return objective


def random_views(samples: int = 6) -> BatchViews:
    nodes = torch.randn(3, samples, DIM, generator=torch.Generator().manual_seed(0))
    patches, tokens = torch.randn(2, samples, 5, DIM, generator=torch.Generator().manual_seed(1))
    return BatchViews(*nodes, patches=patches, tokens=tokens, words=torch.eye(40, DIM))


@pytest.mark.parametrize("case", ["barycenter", "pairwise", "infonce", "siglip", "vlap"])
def test_views_that_are_not_used_do_not_matter(case: str):
    objective = build(case, views=("extended", "image"))
    assert objective.needs - {"words"} == {"extended"}
    views = random_views()
    losses = []
    for answer in (None, views.answer):
        objective = build(case, views=("extended", "image"))
        losses.append(objective(dataclasses.replace(views, answer=answer)).loss.item())
    assert losses[0] == losses[1]


def test_names_and_options():
    assert [name for name in OBJECTIVES if build_objective(name, DIM) is None] == ["none", "extended_text"]
    assert objective_options("none") == frozenset()
    assert {"neighbours", "barycenter", "legacy", "relaxation", "gradient"} <= objective_options("barycenter")


@pytest.mark.parametrize("name", NEEDS)
def test_objectives_say_what_they_need(name: str):
    assert set(NEEDS) == set(OBJECTIVES) - {"none", "extended_text"}
    objective = build(name)
    assert objective.needs == NEEDS[name]
    views = random_views()
    unused = {field.name for field in dataclasses.fields(views)} - objective.needs - {"image"}
    assert objective(dataclasses.replace(views, **dict.fromkeys(unused))).loss.isfinite()
    assert all(parameter.ndim > 0 for parameter in objective.parameters()), "sharded training refuses scalars"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("clip", {}),
        ("none", {"neighbours": 3}),
        ("infonce", {"neighbours": 3}),
        ("infonce", {"views": ("answer", "extended")}),
        ("infonce", {"views": "image"}),
        ("infonce", {"views": ("image", "image", "answer")}),
        ("infonce", {"temperature": 0.0}),
        ("siglip", {"bias": float("nan")}),
        ("optimal_transport", {"text": "image"}),
        ("optimal_transport", {"epsilon": 0.0}),
        ("optimal_transport", {"iterations": 0}),
        ("optimal_transport", {"max_patches": 0}),
        ("vlap", {"max_words": 1}),
        ("vlap", {"epsilon": 0.0}),
        ("barycenter", {"barycenter": "median"}),
        ("barycenter", {"gradient": "exact"}),
        ("barycenter", {"relaxation": "convex"}),
        ("barycenter", {"relaxation": "sinkhorn", "gradient": "imle"}),
        ("barycenter", {"gradient": "blackbox", "samples": 4}),
        ("barycenter", {"temperature": 0.1}),
        ("barycenter", {"relaxation": "sinkhorn", "noise_scale": 0.1}),
        ("barycenter", {"legacy": True, "barycenter": "leave_one_out"}),
        ("barycenter", {"legacy": True, "gradient": "imle"}),
        ("barycenter", {"legacy": True, "relaxation": "spectral"}),
        ("barycenter", {"legacy": True, "margin": 0.1}),
        ("barycenter", {"margin": -0.1}),
        ("infonce", {"margin": 0.1}),
        ("pairwise", {"barycenter": "mean"}),
    ],
    ids=str,
)
def test_options_that_would_be_ignored_or_make_no_sense_are_refused(name: str, options: dict[str, Any]):
    """Trap 11: no option is silently ignored."""
    with pytest.raises(ValueError, match=ERROR_FORM):
        build_objective(name, DIM, **options)


@pytest.mark.parametrize(
    ("case", "change"),
    [
        ("barycenter", {"answer": None}),
        ("vlap", {"words": None}),
        ("optimal_transport", {"tokens": None}),
        ("infonce", {"answer": torch.zeros(5, DIM)}),
        ("infonce", {"image": torch.zeros(6, DIM + 1)}),
        ("infonce", {"groups": torch.zeros(6, dtype=torch.int64)}),
        ("vlap", {"words": torch.zeros(6, DIM + 1)}),
        ("optimal_transport", {"patches": torch.zeros(6, DIM)}),
        ("optimal_transport", {"token_mask": torch.ones(6, 4)}),
    ],
)
def test_views_that_do_not_fit_are_refused(case: str, change: dict[str, Any]):
    with pytest.raises(ValueError, match=ERROR_FORM):
        build(case)(dataclasses.replace(random_views(), **change))
