"""Trains a network to match real landmarks with every gradient estimator, all for the same number of solved problems.

Needs the data folder that GRAPHMATCH_DATA names. The costs come from coordinates alone (`keypoint_network.py`), the
pairs are described in `keypoints.py`. Learning rates, steps and scales were chosen on pairs of training images (seed
100), by a few trials per estimator.

    python -m benchmarks.keypoint_learning               # four minutes on two cores; results/keypoints.*
    python -m benchmarks.keypoint_learning --plot-only   # draws the picture again
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, fields
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

import graphmatch as gm
from benchmarks import keypoint_report
from benchmarks.keypoint_network import Costs
from benchmarks.keypoints import CATEGORIES, Pairs, Split, accuracy, draw_pairs, images
from benchmarks.machine import provenance
from benchmarks.output import write_rows
from benchmarks.tables import Row


@dataclass(frozen=True)
class Experiment:
    """What is trained and how.

    Attributes:
        budget: Problems solved in training, noisy ones included.
        batch: Pairs per step.
        pool: Pairs of training images that batches are drawn from.
        tested: Pairs of test images.
        seeds: Runs per estimator.
        measurements: Shares of the budget after which the test accuracy is measured.
    """

    budget: int = 32_000
    batch: int = 32
    pool: int = 4096
    tested: int = 512
    seeds: int = 3
    measurements: tuple[float, ...] = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)


@dataclass(frozen=True)
class Arm:
    """A way to train.

    Attributes:
        gradient: The estimator.
        learning_rate: Of Adam.
        budget: Factor on the budget of the experiment.
    """

    gradient: gm.GradientEstimator
    learning_rate: float = 3e-3
    budget: float = 1.0


# Estimators of large variance want much noise and small steps.
_SCORE: dict[str, Any] = {"samples": 4, "noise_scale": 1.0, "noise": "gaussian", "perturb": "unary"}

ARMS: dict[str, Arm] = {
    "BlackBox": Arm(gm.BlackBox(step=0.3), 1e-2),
    "NegativeIdentity": Arm(gm.NegativeIdentity(normalise=True)),
    "StraightThroughSinkhorn": Arm(gm.StraightThroughSinkhorn(temperature=0.3)),
    "IMLE, 1 sample": Arm(gm.IMLE(step=1.0, noise_scale=0.1)),
    "IMLE, 1 sample, one-sided": Arm(gm.IMLE(step=3.0, symmetric=False)),
    "IMLE, 8 samples": Arm(gm.IMLE(samples=8, step=3.0), 1e-2),
    "IMLE, 8 samples, one-sided": Arm(gm.IMLE(samples=8, step=3.0, noise_scale=0.1, symmetric=False), 1e-2),
    "AdaptiveIMLE, 1 sample": Arm(gm.AdaptiveIMLE(step=3.0, noise_scale=0.1, wanted_changes=8.0, rate=0.05)),
    "FenchelYoung, 1 sample": Arm(gm.FenchelYoung(perturb="unary")),
    "FenchelYoung, 8 samples": Arm(gm.FenchelYoung(samples=8, perturb="unary")),
    "PerturbedOptimizer": Arm(gm.PerturbedOptimizer(**_SCORE), 1e-3),
    "PerturbedOptimizer, budget x 5": Arm(gm.PerturbedOptimizer(**_SCORE | {"samples": 16}), budget=5.0),
    "ScoreFunction": Arm(gm.ScoreFunction(**_SCORE), 1e-3),
    "ScoreFunction, budget x 5": Arm(gm.ScoreFunction(**_SCORE | {"samples": 16}), budget=5.0),
}


class CountingSolver:
    """Solves as another solver does, and counts the problems."""

    def __init__(self, solver: gm.Portfolio) -> None:
        self.solver = solver
        self.count = 0

    def solve(self, problem: gm.Problem) -> gm.MatchResult:
        """Returns the answer of the other solver."""
        return self._counted(self.solver.solve(problem))

    def solve_from(self, state: Any, problem: gm.Problem) -> gm.MatchResult:
        """Returns the answer of the other solver, from a state."""
        return self._counted(self.solver.solve_from(state, problem))

    def _counted(self, result: gm.MatchResult) -> gm.MatchResult:
        self.count += len(result.assignment)
        return result


def solver() -> gm.Portfolio:
    """Returns what matches in training and in the tests: the hasty portfolio, no proofs."""
    return gm.Portfolio(max_gap=1e-3, effort=0.02, max_iterations=5)


def training_loss(layer: gm.MatchingLayer, costs: tuple[Tensor, ...], pairs: Pairs) -> Tensor:
    """Returns the Hamming loss of a batch, or what the layer's estimator has in its place."""
    if isinstance(layer.gradient, gm.FenchelYoung):
        return layer.loss(pairs.target, *costs)
    if isinstance(layer.gradient, gm.ScoreFunction):
        return layer.expected_loss(lambda matching, _: 1 - accuracy(matching, pairs), *costs).mean()
    return gm.hamming_loss(layer(*costs)[0], pairs.target)


@torch.no_grad()
def tested(network: nn.Module, pairs: Pairs) -> Tensor:
    """Returns the share of landmarks matched correctly, without noise, (b,)."""
    return accuracy(gm.solve(gm.LawlerProblem(*network(pairs)), solver()).matching, pairs)


def written(gradient: gm.GradientEstimator) -> str:
    """Returns an estimator as code, without the options that have their defaults."""
    values = [(field.name, getattr(gradient, field.name), field.default) for field in fields(gradient)]
    options = ", ".join(f"{name}={value!r}" for name, value, default in values if value != default)
    return f"{type(gradient).__name__}({options})"


def train(
    arm: Arm, experiment: Experiment, seed: int, landmarks: dict[str, np.ndarray], test_split: Split = "test"
) -> Row:
    """Trains with one estimator until the budget of solved problems is spent.

    Network, pairs and order of the batches depend on the seed only.
    """
    pool = draw_pairs(landmarks, "train", experiment.pool, seed)
    unseen = draw_pairs(landmarks, test_split, experiment.tested, seed + 1_000_000)
    torch.manual_seed(seed)
    network = Costs()
    counting = CountingSolver(solver())
    layer = gm.MatchingLayer(counting, arm.gradient)
    optimizer = torch.optim.Adam(network.parameters(), lr=arm.learning_rate)
    order = torch.Generator().manual_seed(seed)
    untrained = tested(network, unseen)
    curve = [[0, untrained.mean().item()]]
    zero, steps, seconds, wall = 0, 0, 0.0, 0.0
    budget = arm.budget * experiment.budget
    for share in experiment.measurements:
        start, wall_start = time.process_time(), time.perf_counter()
        while counting.count < share * budget:
            pairs = pool.take(torch.randint(experiment.pool, (experiment.batch,), generator=order))
            costs = network(pairs)
            for cost in costs[:2]:
                cost.retain_grad()
            optimizer.zero_grad()
            training_loss(layer, costs, pairs).backward()
            optimizer.step()
            gradients = [cost.grad.flatten(1) for cost in costs[:2] if cost.grad is not None]
            zero += int((torch.cat(gradients, 1) == 0).all(1).sum())
            steps += 1
        seconds += time.process_time() - start
        wall += time.perf_counter() - wall_start
        trained = tested(network, unseen)
        curve.append([counting.count, trained.mean().item()])
    return {
        "seed": seed,
        "gradient": written(arm.gradient),
        "learning_rate": arm.learning_rate,
        "steps": steps,
        "solved": counting.count,
        "cpu_seconds": round(seconds, 2),
        "wall_seconds": round(wall, 2),
        "zero_gradient_share": zero / (steps * experiment.batch),
        "untrained": curve[0][1],
        "trained": curve[-1][1],
        "by_category": {
            name: [each[unseen.category == CATEGORIES.index(name)].mean().item() for each in (untrained, trained)]
            for name in landmarks
        },
        "curve": curve,
    }


def _run(name: str, experiment: Experiment, seed: int, folder: Path) -> Row:
    # Small tensors: more threads only get in each other's way.
    torch.set_num_threads(1)
    return {"estimator": name, **train(ARMS[name], experiment, seed, images(folder))}


def all_runs(experiment: Experiment, folder: Path, workers: int) -> list[Row]:
    """Returns a row per seed and estimator."""
    # Forked workers would inherit the threads of PyTorch in an unusable state.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [
            pool.submit(_run, name, experiment, seed, folder) for seed, name in product(range(experiment.seeds), ARMS)
        ]
        rows = [job.result() for job in tqdm(as_completed(jobs), total=len(jobs), unit="run")]
    order = list(ARMS)
    return sorted(rows, key=lambda row: (order.index(row["estimator"]), row["seed"]))


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=Experiment.seeds, help="runs per estimator (%(default)s)")
    parser.add_argument("--budget", type=int, default=Experiment.budget, help="problems solved per run (%(default)s)")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="processes (%(default)s)")
    parser.add_argument("--plot-only", action="store_true", help="draw the stored results again")
    options = parser.parse_args(arguments)
    if not options.plot_only:
        folder = os.environ.get("GRAPHMATCH_DATA")
        if not folder:
            sys.stderr.write(
                "benchmarks.keypoint_learning: GRAPHMATCH_DATA names no data folder; nothing is measured.\n"
            )
            return 0
        experiment = Experiment(seeds=options.seeds, budget=options.budget)
        rows = all_runs(experiment, Path(folder), options.workers)
        write_rows(
            keypoint_report.JSON,
            {
                "experiment": vars(experiment),
                **provenance(),
                "threads": 1,
                "workers": options.workers,
                "benchmarks": rows,
            },
        )
    keypoint_report.draw(keypoint_report.stored()["benchmarks"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
