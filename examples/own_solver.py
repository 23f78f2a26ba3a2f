"""Differentiate through a solver of your own: dynamic programming that aligns two recordings of a melody.

You learn what a solver is (one method), how it goes into `gm.MatchingLayer`, and how to check the gradients it gives.
Two instruments play one melody; each has a sound of its own, and the second leaves notes out and adds others.
The script prints the accuracy before and after training, and what an assignment that ignores the order reaches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import torch
from _script import THEMES, label_curves, panels, run
from torch import Tensor, nn

import graphmatch as gm
from graphmatch import viz

NOTES, COMMON, PITCHES, SAMPLES = 12, 9, 8, 32
ALONE = -0.3  # the cost of a note without a partner
STEPS, BATCH, UNSEEN = 150, 24, 128


@dataclass(frozen=True)
class InOrder:
    """Solver for linear problems with an unmatched cost whose matches must not cross: first comes first on both sides.

    Dynamic programming over the rows, for a whole batch at once; exact among the matchings that keep the order.
    Source: S. Needleman and C. Wunsch, "A general method ...", Journal of Molecular Biology 48 (1970).
    """

    def solve(self, problem: gm.Problem) -> gm.MatchResult:
        """Returns the cheapest matchings that keep the order."""
        if not isinstance(problem, gm.LinearProblem) or problem.unmatched_cost is None:
            raise TypeError("InOrder: problem must be a LinearProblem with an unmatched_cost; got another one.")
        alone = problem.unmatched_cost
        gains = problem.costs.detach().double() - alone  # what a match costs more than leaving its row alone
        batch, rows, columns = gains.shape
        best = gains.new_zeros(batch, columns + 1)  # of the rows so far, by how many columns they may use
        partners = []
        for row in gains.unbind(1):
            matched = torch.minimum(best[:, 1:], best[:, :-1] + row)
            new, place = torch.cat([best[:, :1], matched], 1).cummin(1)
            partners.append(torch.where(new < best, place - 1, -1))
            best = new

        found, free = [], torch.full((batch, 1), columns)
        for partner in reversed(partners):
            column = partner.gather(1, free)
            found.append(column)
            free = torch.where(column >= 0, column, free)
        assignment = torch.cat(found[::-1], 1)

        objective = rows * alone + best[:, -1]
        # A bound holds for all matchings, in order or not: no row does better than its cheapest choice.
        bound = rows * alone + gains.amin(2).clamp(max=0).sum(1) - 1e-9
        status = torch.full((batch,), int(gm.Status.FEASIBLE))
        return gm.MatchResult(problem, assignment, objective, bound, status, torch.full((batch,), rows))


def check_gradients() -> gm.testing.GradientReport:
    """Compares gradients through the solver with the truth, on 3 x 3 costs whose matchings in order can be listed."""
    listed = []
    for size in range(4):
        for rows in combinations(range(3), size):
            for columns in combinations(range(3), size):
                matching = torch.zeros(3, 3, dtype=torch.float64)
                matching[list(rows), list(columns)] = 1
                listed.append(matching.flatten())
    every = gm.testing.EnumeratedProblem(torch.stack(listed), ((3, 3),))
    estimator = gm.IMLE(samples=8, step=0.3, noise="gaussian", noise_scale=1.0, perturb="all")

    def solve(costs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (gm.solve(gm.LinearProblem(costs[0], unmatched_cost=0.0), InOrder()).matching.to(costs[0]),)

    return gm.testing.check_gradient_estimator(estimator, solve, problem=every, replicates=100)


def melodies(count: int, generator: torch.Generator) -> tuple[list[Tensor], Tensor]:
    """Returns two recordings (b, NOTES, SAMPLES), and the true partner of each note of the first, -1 = left out."""
    score, other = torch.randint(PITCHES, (2, count, NOTES), generator=generator)
    # Some notes of the first, and where the second plays them: in the same order.
    kept, places = torch.rand(2, count, NOTES, generator=generator).argsort(2)[:, :, :COMMON].sort(2).values
    again = other.scatter(1, places, score.gather(1, kept))
    truth = torch.full((count, NOTES), -1).scatter(1, kept, places)
    time = torch.linspace(0, 2 * math.pi, SAMPLES)
    recordings = []
    for notes, overtones in ((score, 0.0), (again, 0.8)):
        start = 2 * math.pi * torch.rand(count, NOTES, 1, generator=generator)
        phase = time * (1 + 0.5 * notes[..., None]) + start
        wave = phase.sin() + overtones * ((2 * phase).sin() + (3 * phase).cos())
        recordings.append(wave + 0.1 * torch.randn(wave.shape, generator=generator))
    return recordings, truth


def main(output: Path, seed: int = 0, theme: str = "light") -> None:
    """Checks the gradients, trains two ears through the solver, and draws what they make of an unseen melody."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    report = check_gradients()
    print(f"distance of the solver from the optimum: {report.solver_gap:.0e}")
    print(f"gradient check passed: {report.passed}")

    ears = nn.ModuleList(nn.Sequential(nn.Linear(SAMPLES, 128), nn.ReLU(), nn.Linear(128, 16)) for _ in range(2))

    def heard(recordings: list[Tensor]) -> Tensor:
        return -gm.cosine_affinity(*(ear(notes) for ear, notes in zip(ears, recordings, strict=True)))

    # Of unseen melodies nobody knows the answer, but of these: a Fenchel-Young loss is what learns fastest from it.
    layer = gm.MatchingLayer(InOrder(), gm.FenchelYoung(samples=2, noise_scale=0.3), unmatched_cost=ALONE)
    optimizer = torch.optim.Adam(ears.parameters(), lr=2e-3)
    unseen, truth = melodies(UNSEEN, generator)
    curve, found = [], []
    for step in range(STEPS + 1):
        if step % 15 == 0:
            problem = gm.LinearProblem(heard(unseen).detach(), unmatched_cost=ALONE)
            found.append(gm.solve(problem, InOrder()).assignment)
            curve.append((step, 100 * float((found[-1] == truth).float().mean())))
        recordings, target = melodies(BATCH, generator)
        wanted = (target[:, :, None] == torch.arange(NOTES)).float()  # a row without a 1 is to stay alone
        optimizer.zero_grad()
        layer.loss(wanted, heard(recordings)).backward()
        optimizer.step()

    steps, accuracies = zip(*curve, strict=True)
    unordered = 100 * float((gm.solve(problem, gm.LAP()).assignment == truth).float().mean())
    print(f"notes of {UNSEEN} unseen melodies: {accuracies[0]:.0f} % right before, {accuracies[-1]:.0f} % after")
    print(f"with the same ears, but in any order (gm.LAP): {unordered:.0f} %")
    print(f"training helped: {accuracies[-1] > accuracies[0] + 20}")
    print(f"the order helped: {accuracies[-1] > unordered}")

    figure, axes = panels(theme, 12, 5.6, "ABC", width_ratios=(1, 1, 1.3))
    line = torch.stack([torch.zeros(NOTES), -torch.arange(NOTES)], 1)
    graph = gm.Graph(line.float(), torch.stack([torch.arange(NOTES - 1), torch.arange(1, NOTES)], 1))
    moved = int(torch.where(truth >= 0, truth - torch.arange(NOTES), 0).abs().sum(1).argmax())  # where notes move most
    for letter, name, matching in (("A", "before training", found[0][moved]), ("B", "after", found[-1][moved])):
        viz.draw_matching(matching, (graph, graph), target=truth[moved], title=name, axes=axes[letter], theme=theme)
    axes["C"].plot(steps, accuracies, color=THEMES[theme].right, linewidth=3, marker="o", label="in order")
    axes["C"].axhline(unordered, color=THEMES[theme].wrong, linewidth=2.5, linestyle="--", label="same ears, any order")
    axes["C"].set_ylim(0, 102)
    label_curves(axes["C"], theme, "training step", "right, %", "notes of unseen melodies")
    viz.save_figure(figure, output)


if __name__ == "__main__":
    run(main)
