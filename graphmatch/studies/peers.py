"""The estimators of PyEPO on the problems of the gradient study, by the real package."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphmatch.studies.problems import StudyProblem


@dataclass(frozen=True)
class Peer:
    """One estimator of another package.

    Attributes:
        name: With the options that differ from its defaults.
        build: Takes the model to optimise, the number of samples and the seed; returns the module.
        samples: Whether it draws samples.
        batched: Whether a batch gives independent estimates.
    """

    name: str
    build: Callable[[Any, int, int], Any]
    samples: bool = True
    batched: bool = True

    def estimates(self, problem: StudyProblem, samples: int, repetitions: int, seed: int) -> Tensor:
        """Returns (repetitions, d) estimates."""
        module = self.build(_model(problem), samples, seed)
        size = repetitions if self.batched else 1
        return torch.cat([_gradients(module, problem, size) for _ in range(repetitions // size)])


class _Gaussian:
    """Standard normal noise by PyEPO's protocol: its own default has another smoothed loss."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)

    def sample(self, size: tuple[int, ...]) -> np.ndarray:
        """Returns an array of that shape."""
        return self._generator.standard_normal(size)


def pyepo_version() -> str | None:
    """Returns the version of PyEPO; None if it is not installed."""
    return importlib.metadata.version("pyepo") if importlib.util.find_spec("pyepo") else None


def pyepo_peers() -> list[Peer]:
    """Returns PyEPO's estimators, with their defaults and with the best options of the study."""
    from pyepo import func

    def imle(**options: Any) -> Callable[[Any, int, int], Any]:
        return lambda model, samples, seed: func.implicitMLE(
            model, n_samples=samples, sigma=1.0, distribution=_Gaussian(seed), **options
        )

    def adaptive(**options: Any) -> Callable[[Any, int, int], Any]:
        return lambda model, samples, seed: func.adaptiveImplicitMLE(
            model, n_samples=samples, sigma=1.0, distribution=_Gaussian(seed), **options
        )

    return [
        Peer("DPO", lambda model, samples, seed: func.perturbedOpt(model, n_samples=samples, sigma=1.0, seed=seed)),
        Peer("IMLE, lambda 10 (default)", imle()),
        Peer("IMLE, lambda 0.3", imle(lambd=0.3)),
        Peer("IMLE, lambda 0.3, two sides", imle(lambd=0.3, two_sides=True)),
        # Its lambda follows from the norms over the batch, and moves from call to call.
        Peer("AIMLE", adaptive(), batched=False),
        Peer("AIMLE, two sides", adaptive(two_sides=True), batched=False),
        Peer("DBB, lambda 10 (default)", lambda model, samples, seed: func.blackboxOpt(model), samples=False),
        Peer("NID", lambda model, samples, seed: func.negativeIdentity(model), samples=False),
    ]


def _model(problem: StudyProblem) -> Any:
    """Returns PyEPO's model of the problem; its solver enumerates."""
    from pyepo.model.opt import optModel

    vertices = problem.problem.vertices.numpy()

    class Enumeration(optModel):
        def _getModel(self) -> tuple[None, range]:  # noqa: N802
            return None, range(vertices.shape[1])

        def setObj(self, c: Any) -> None:  # noqa: N802
            self.objectives = vertices @ np.asarray(c)

        def solve(self) -> tuple[np.ndarray, float]:
            best = int(self.objectives.argmin())
            return vertices[best], float(self.objectives[best])

    return Enumeration()


def _gradients(module: Any, problem: StudyProblem, size: int) -> Tensor:
    costs = problem.costs.expand(size, -1).clone().requires_grad_()
    return torch.autograd.grad((module(costs) * problem.upstream).sum(), costs)[0]
