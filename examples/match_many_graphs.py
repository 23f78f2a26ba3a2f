"""Match eight photographs of one constellation so that no two matchings contradict each other.

You learn how pairs of graphs become one `MultiGraphProblem`, and what consistency in cycles is worth.
Every photograph is blurred and lacks stars; matched two by two, they disagree about which star is which.
The script prints consistency and accuracy of the pairs alone and of `gm.solve_multigraph`, which has all agree.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import torch
from _script import run
from torch import Tensor

import graphmatch as gm
from graphmatch import viz

STARS, PHOTOGRAPHS, SEEN, BLUR = 12, 8, 10, 0.04
ALONE = -0.3  # the cost of a star without a partner


def photographs(generator: torch.Generator) -> tuple[list[gm.Graph], list[Tensor]]:
    """Returns the graphs of all photographs, and which star each of their nodes is."""
    grid = torch.cartesian_prod(torch.arange(4), torch.arange(3)) / 4
    sky = grid + 0.2 * torch.rand(STARS, 2, generator=generator)
    graphs, names = [], []
    for _ in range(PHOTOGRAPHS):
        stars = torch.randperm(STARS, generator=generator)[:SEEN]
        graphs.append(gm.knn_graph(sky[stars] + BLUR * torch.randn(SEEN, 2, generator=generator), k=4))
        names.append(stars)
    return graphs, names


def pair_problem(left: gm.Graph, right: gm.Graph) -> gm.LawlerProblem:
    """Returns the costs between two photographs: lines between stars that are alike pay off."""
    way1, way2 = (graph.nodes[graph.edges[:, 1]] - graph.nodes[graph.edges[:, 0]] for graph in (left, right))
    quadratic = -0.5 * torch.exp(-((torch.cdist(way1, way2) / 0.15) ** 2))
    unary = torch.zeros(1, len(left.nodes), len(right.nodes))
    return gm.LawlerProblem(unary, quadratic[None], left.edges, right.edges, unmatched_cost=ALONE)


def accuracy(assignment: Tensor, pairs: Tensor, names: list[Tensor]) -> float:
    """Returns the share of nodes with the right partner, or rightly without one."""
    right = []
    for found, (first, second) in zip(assignment, pairs.tolist(), strict=True):
        same = names[first][:, None] == names[second][None, :]
        truth = torch.where(same.any(1), same.int().argmax(1), -1)
        right.append(found == truth)
    return float(torch.stack(right).float().mean())


def main(output: Path, seed: int = 0, theme: str = "light") -> None:
    """Matches the photographs two by two, then all at once."""
    graphs, names = photographs(torch.Generator().manual_seed(seed))
    pairs = {(a, b): pair_problem(graphs[a], graphs[b]) for a, b in combinations(range(PHOTOGRAPHS), 2)}
    problem = gm.MultiGraphProblem.from_pairs(pairs)

    # All pairs are one batch: this is a single native call.
    alone = gm.solve(problem.costs).assignment
    consistency = gm.cycle_consistency(alone, problem.pairs, problem.node_counts)
    before = accuracy(alone, problem.pairs, names)

    together = gm.solve_multigraph(problem)
    after = accuracy(together.assignment, problem.pairs, names)

    print(f"pairs alone:  {100 * consistency:.0f} % consistent, {100 * before:.1f} % right")
    print(f"all together: {100 * together.consistency:.0f} % consistent, {100 * after:.1f} % right")
    print(f"stars found: {together.universe_size}, stars there are: {STARS}")
    print(f"consistent now, and not before: {together.consistency == 1 > consistency}")
    print(f"more matches are right: {after > before}")
    # A letter follows one star through all photographs; the table below says which node stands for it in each.
    title = f"matches right: {100 * before:.0f} % in pairs alone, {100 * after:.0f} % together"
    figure = viz.draw_universe(together, graphs, title=title, theme=theme)
    viz.save_figure(figure, output)


if __name__ == "__main__":
    run(main)
