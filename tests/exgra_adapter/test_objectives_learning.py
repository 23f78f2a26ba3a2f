"""Training with every alignment objective: towers of linear maps learn what their data have in common."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from exgra_adapter.objectives import BatchViews, build_objective
from exgra_adapter.objectives.base import view_retrieval
from exgra_adapter.objectives.relaxations import GRADIENTS, RELAXATIONS

DIM = 16
SOLVERS = ("spectral", "rrwm", "ipfp")


class Towers(nn.Module):
    """A linear map for each of three kinds of data that come from common points."""

    def __init__(self, samples: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        points = torch.randn(samples, 1, 8, generator=generator)
        self.data = [
            points @ torch.randn(8, 24, generator=generator) + 0.5 * torch.randn(samples, 4, 24, generator=generator)
            for _ in range(3)
        ]
        self.maps = nn.ModuleList(nn.Linear(24, DIM) for _ in range(3))
        self.words = torch.randn(64, DIM, generator=generator)

    def forward(self) -> BatchViews:
        """The views of all samples."""
        parts = [tower(each) for tower, each in zip(self.maps, self.data, strict=True)]
        return BatchViews(*(each.mean(1) for each in parts), patches=parts[0], tokens=parts[1], words=self.words)


def trained_retrieval(name: str, steps: int, samples: int = 24, **options: Any) -> tuple[float, float]:
    """Retrieval between image and answer before and after training."""
    torch.manual_seed(0)
    objective, towers = build_objective(name, DIM, **options), Towers(samples)
    assert objective is not None

    def measured() -> float:
        with torch.no_grad():
            views = towers()
        nodes = {"image": views.image, "answer": views.required("answer")}
        return view_retrieval(nodes, dict.fromkeys(nodes)).item()

    before = measured()
    optimizer = torch.optim.Adam([*towers.parameters(), *objective.parameters()], lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        objective(towers()).loss.backward()
        optimizer.step()
    return before, measured()


@pytest.mark.parametrize("name", ["infonce", "siglip", "optimal_transport", "vlap", "pairwise", "barycenter"])
def test_every_objective_teaches(name: str):
    before, after = trained_retrieval(name, steps=40)
    assert before < 0.2
    assert after > 0.9


@pytest.mark.parametrize(
    "options",
    [
        *({"gradient": name} for name in GRADIENTS if name not in ("imle", "perturbed")),
        *({"relaxation": name} for name in RELAXATIONS if name not in ("none", *SOLVERS)),
        {"message_passing": False},
        {"views": ("image", "answer")},
    ],
    ids=str,
)
def test_every_option_teaches(options: dict[str, Any]):
    before, after = trained_retrieval("barycenter", steps=25, samples=12, **options)
    assert before < 0.3
    assert after > 0.6


@pytest.mark.parametrize(
    "options",
    [
        {"gradient": "perturbed"},
        *(
            pytest.param({"relaxation": name}, marks=[pytest.mark.slow] if name == "rrwm" else [], id=name)
            for name in SOLVERS
        ),
    ],
    ids=str,
)
def test_what_is_slow_teaches_small_batches(options: dict[str, Any]):
    steps = 60 if "gradient" in options else 15
    before, after = trained_retrieval("barycenter", steps, samples=8, **options)
    assert before < 0.3
    assert after > 0.6
