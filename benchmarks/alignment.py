"""Trains with the alignment loss alone and measures retrieval on unseen points, for both barycenters and gradients.

Three views of the same points are random linear projections of noisy copies; one linear head per view is trained by
nothing but the alignment loss, on fresh points every step. A loss that teaches makes the heads undo the projections.

    python -m benchmarks.alignment               # about three minutes; writes results/alignment.json and alignment.png
    python -m benchmarks.alignment --plot-only   # draws the picture again
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import pairwise, permutations, product
from typing import Any, Literal, get_args

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, PercentFormatter
from torch import Tensor, nn
from tqdm import tqdm

import graphmatch as gm
from benchmarks.machine import RESULTS, provenance
from benchmarks.output import BLUE, GREY, ORANGE, figure, write_json

JSON = RESULTS / "alignment.json"
PICTURE = RESULTS / "alignment.png"
TARGET = 0.95

Barycenter = Literal["leave_one_out", "mean"]
# None takes the one that `BarycenterAlignment` takes by itself.
GRADIENTS: dict[str, gm.GradientEstimator | None] = {"default": None, "BlackBox": gm.BlackBox()}
NAMES = {"leave_one_out": "leave-one-out", "mean": "mean (paper)"}
_COLOURS = {"leave_one_out": BLUE, "mean": ORANGE}
# The wider lies below, so that equal curves are both seen.
_WIDTHS = {"leave_one_out": 2.2, "mean": 4.8}
_LINES = {"default": "-", "BlackBox": "--"}
_VIEWS = 3


@dataclass(frozen=True)
class Experiment:
    """What is trained and how.

    Attributes:
        points: Points N per step.
        latent: Length of the points themselves.
        raw: Length of their projections.
        dim: Length of the heads' features.
        noise: Deviation of the noise that each view adds to the points, which have deviation 1.
        learning_rate: Of Adam.
        steps: Training steps.
        seeds: Runs per barycenter and gradient.
        unseen: Sizes of the sets of unseen points in which retrieval is measured.
        measurements: Measurements per run, at steps in geometric progression: most is learned in the first ones.
    """

    points: int = 32
    latent: int = 16
    raw: int = 32
    dim: int = 32
    noise: float = 0.3
    learning_rate: float = 1e-2
    steps: int = 300
    seeds: int = 3
    unseen: tuple[int, ...] = (32, 64)
    measurements: int = 24


@dataclass
class Run:
    """What one training showed: per step, and per measurement on unseen points."""

    seed: int
    barycenter: Barycenter
    gradient: str
    gradient_options: str
    loss: list[float] = field(default_factory=list)
    matching_accuracy: list[float] = field(default_factory=list)
    zero_gradient: list[bool] = field(default_factory=list)
    measured_after: list[int] = field(default_factory=list)
    retrieval: dict[str, list[float]] = field(default_factory=dict)


class _Views:
    """Random linear projections of noisy copies of random points."""

    def __init__(self, experiment: Experiment, seed: int) -> None:
        self.experiment = experiment
        self.generator = torch.Generator().manual_seed(seed)
        scale = experiment.latent**-0.5
        self.projections = [scale * self._normal(experiment.latent, experiment.raw) for _ in range(_VIEWS)]

    def draw(self, points: int) -> list[Tensor]:
        """Returns the views (points, raw) of fresh points."""
        latent = self._normal(points, self.experiment.latent)
        noise = self.experiment.noise
        return [(latent + noise * self._normal(*latent.shape)) @ projection for projection in self.projections]

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)


def train(
    experiment: Experiment, barycenter: Barycenter, gradient: str, seed: int, after_step: Callable[[], object]
) -> Run:
    """Trains the heads with the alignment loss alone; views and initial weights depend on the seed only."""
    views = _Views(experiment, seed)
    # 512 points in sets of each size: one set of 64 would be a coarse measure.
    unseen = {size: [views.draw(size) for _ in range(512 // size)] for size in experiment.unseen}
    torch.manual_seed(seed)
    heads = nn.ModuleList(nn.Linear(experiment.raw, experiment.dim) for _ in range(_VIEWS))
    alignment = gm.BarycenterAlignment(experiment.dim, barycenter=barycenter, gradient=GRADIENTS[gradient])
    optimizer = torch.optim.Adam([*heads.parameters(), *alignment.parameters()], lr=experiment.learning_rate)
    run = Run(seed, barycenter, gradient, repr(alignment.layer.gradient))
    measured = {0, *np.geomspace(1, experiment.steps, experiment.measurements).round().astype(int).tolist()}
    for step in range(experiment.steps + 1):
        if step in measured:
            run.measured_after.append(step)
            for size, sets in unseen.items():
                run.retrieval.setdefault(str(size), []).append(_retrieval(heads, sets))
        if step == experiment.steps:
            break
        details = alignment.details(*_apply(heads, views.draw(experiment.points)))
        optimizer.zero_grad()
        details.loss.backward()
        optimizer.step()
        run.loss.append(details.loss.item())
        run.matching_accuracy.append(details.matching_accuracy.item())
        run.zero_gradient.append(bool(alignment.zero_gradient))
        after_step()
    return run


def _apply(heads: nn.ModuleList, views: list[Tensor]) -> list[Tensor]:
    return [head(view) for head, view in zip(heads, views, strict=True)]


@torch.no_grad()
def _retrieval(heads: nn.ModuleList, sets: list[list[Tensor]]) -> float:
    """Mean top-1 retrieval over sets of points and ordered pairs of views."""
    scores = [
        gm.retrieval_accuracy(queries, keys)
        for views in sets
        for queries, keys in permutations(_apply(heads, views), 2)
    ]
    return torch.stack(scores).mean().item()


def _all_runs(experiment: Experiment) -> Iterator[Run]:
    arms = list(product(range(experiment.seeds), get_args(Barycenter), GRADIENTS))
    with tqdm(total=len(arms) * experiment.steps, unit="step", smoothing=0.05) as progress:
        for seed, barycenter, gradient in arms:
            progress.set_description(f"seed {seed}, {NAMES[barycenter]}, {gradient}")
            yield train(experiment, barycenter, gradient, seed, progress.update)


def summarise(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns per barycenter and gradient the last retrieval, the first step at the target, and the silent steps."""
    summary = []
    for (barycenter, _), own in _arms(runs).items():
        retrieval = {}
        for size in own[0]["retrieval"]:
            curves = np.array([run["retrieval"][size] for run in own])
            reached = np.flatnonzero((curves >= TARGET).all(0))
            retrieval[size] = {
                "mean": curves[:, -1].mean(),
                "least": curves[:, -1].min(),
                "largest": curves[:, -1].max(),
                "all_seeds_reach_target_after": own[0]["measured_after"][reached[0]] if len(reached) else None,
            }
        zero = float(np.mean([run["zero_gradient"] for run in own]))
        summary.append(
            {
                "barycenter": barycenter,
                "gradient": own[0]["gradient_options"],
                "retrieval": retrieval,
                "zero_gradient_share": zero,
            }
        )
    return summary


def _arms(runs: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Groups runs that differ in nothing but the seed, in the order of the legend."""
    arms = {
        arm: [run for run in runs if (run["barycenter"], run["gradient"]) == arm] for arm in product(NAMES, GRADIENTS)
    }
    return {arm: own for arm, own in arms.items() if own}


def draw(runs: list[dict[str, Any]]) -> None:
    """Draws retrieval on unseen points, recovered matching and zero gradients against the step."""
    with figure(PICTURE, width=14, height=5.4) as canvas:
        retrieval, matching, silent = canvas.subplots(1, 3, width_ratios=(5, 4, 4), sharex=True)
        size = max(runs[0]["retrieval"], key=int)
        for (barycenter, gradient), own in _arms(runs).items():
            style = {
                "color": _COLOURS[barycenter],
                "linestyle": _LINES[gradient],
                "linewidth": _WIDTHS[barycenter],
                "zorder": 3 - _WIDTHS[barycenter] / 10,
            }
            estimator = own[0]["gradient_options"].split("(")[0]
            kind = f"{estimator} (default)" if gradient == "default" else estimator
            label = f"{NAMES[barycenter]} barycenter; {kind}"
            curves = np.array([run["retrieval"][size] for run in own])
            _band(retrieval, own[0]["measured_after"], curves, label=label, **style)
            steps = own[0]["measured_after"]
            curves = np.array([_means_between(run["matching_accuracy"], steps) for run in own])
            _band(matching, steps[1:], curves, **style)
            curves = np.array([[np.mean(run["zero_gradient"][:step]) for step in steps[1:]] for run in own])
            _band(silent, steps[1:], curves, **style)
        retrieval.axhline(TARGET, color=GREY, linewidth=1.4, linestyle=":")
        # Right of the axis, where no curve runs.
        retrieval.text(
            1.01, TARGET, f"{TARGET:.0%}", transform=retrieval.get_yaxis_transform(), color=GREY, va="center"
        )
        retrieval.set(title=f"Retrieval among {size} unseen points", ylabel="top-1, mean of view pairs")
        matching.set(title="Recovered matching, training", ylabel="nodes matched correctly")
        silent.set(title="Steps without any gradient", ylabel="share of the steps so far")
        for axis in (retrieval, matching, silent):
            axis.set_xscale("symlog", linthresh=1)
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set(xlabel="step", ylim=(0, 1.04), xlim=(0, len(runs[0]["loss"])))
            axis.yaxis.set_major_formatter(PercentFormatter(1))
        canvas.legend(loc="outside lower center", ncols=2, handlelength=3.2)


def _band(axis: Axes, steps: Any, curves: np.ndarray, **style: Any) -> None:
    """Plots the mean over the seeds, and the range from the least to the largest."""
    axis.plot(steps, curves.mean(0), **style)
    axis.fill_between(steps, curves.min(0), curves.max(0), color=style["color"], alpha=0.15, linewidth=0)


def _means_between(values: list[float], steps: list[int]) -> np.ndarray:
    """Returns the means over the training steps between one measurement and the next."""
    return np.array([np.mean(values[start:end]) for start, end in pairwise(steps)])


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--seeds", type=int, default=Experiment.seeds, help="runs per barycenter and gradient (%(default)s)"
    )
    parser.add_argument("--steps", type=int, default=Experiment.steps, help="training steps (%(default)s)")
    parser.add_argument("--plot-only", action="store_true", help="draw the stored results again")
    options = parser.parse_args(arguments)
    if options.plot_only:
        runs = json.loads(JSON.read_text(encoding="utf-8"))["runs"]
    else:
        # Small tensors: more threads only get in each other's way.
        torch.set_num_threads(1)
        experiment = Experiment(seeds=options.seeds, steps=options.steps)
        runs = [asdict(run) for run in _all_runs(experiment)]
        write_json(JSON, {"experiment": asdict(experiment), "summary": summarise(runs), "runs": runs, **provenance()})
    draw(runs)


if __name__ == "__main__":
    main()
