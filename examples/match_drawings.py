"""Match two drawings of a house, although each holds things that the other one lacks.

You learn how drawings become graphs, how likeness becomes costs, and how `unmatched_cost` lets nodes stay alone.
The second drawing is tilted and drawn by a shaky hand; its chimney is gone, and a tree has grown beside it.
The script prints whether the planted matching was found, and the certificate that no other one is cheaper.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import torch
from _script import run
from scipy.spatial import Delaunay
from torch import Tensor

import graphmatch as gm
from graphmatch import viz

WALLS = [(0, 0), (4, 0), (4, 3), (2, 5), (0, 3)]
DOOR = [(2.6, 0), (2.6, 1.8), (3.4, 1.8), (3.4, 0)]
WINDOW = [(0.6, 1.2), (1.8, 1.2), (1.8, 2.2), (0.6, 2.2)]
CHIMNEY = [(0.5, 3.5), (0.5, 5.0), (1.1, 5.0), (1.1, 4.1)]
TREE = [(5.6, 0), (5.6, 1.5), (4.9, 1.5), (6.3, 1.5), (5.6, 3.6)]
HOUSE = WALLS + DOOR + WINDOW
# Lines of the pen, from point to point.
HOUSE_LINES = [[0, 1, 2, 3, 4, 0], [2, 4], [5, 6, 7, 8], [9, 10, 11, 12, 9]]
CHIMNEY_LINES, TREE_LINES = [[13, 14, 15, 16]], [[13, 14], [15, 16, 17, 15]]


def sketched(points: Tensor, generator: torch.Generator) -> Tensor:
    """Returns the points as somebody else might draw them: tilted, and not quite in place."""
    angle = math.radians(14)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return (points + 0.05 * torch.randn(points.shape, generator=generator)) @ turn.T


def triangulated(points: Tensor) -> gm.Graph:
    """Returns a graph of points, joined by the sides of their Delaunay triangles, in both directions."""
    corners = torch.from_numpy(Delaunay(points.numpy()).simplices).long()
    sides = torch.cat([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    return gm.Graph(points, torch.cat([sides, sides.flip(1)]).unique(dim=0))


def likeness(left: gm.Graph, right: gm.Graph) -> Tensor:
    """Returns how alike every two edges are (e1, e2), from 0 to 1: in length, and roughly in direction."""
    ways = [graph.nodes[graph.edges[:, 1]] - graph.nodes[graph.edges[:, 0]] for graph in (left, right)]
    ratio = ways[0].norm(dim=1).log()[:, None] - ways[1].norm(dim=1).log()[None, :]
    return torch.exp(-((ratio / 0.25) ** 2)) * gm.cosine_affinity(*ways).clamp(min=0) ** 8


def main(output: Path, seed: int = 0, theme: str = "light") -> None:
    """Draws both houses, matches them, and says whether what was planted came out."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.tensor(HOUSE + CHIMNEY, dtype=torch.float32)
    second = sketched(torch.tensor(HOUSE + TREE, dtype=torch.float32), generator)
    order = torch.randperm(len(second), generator=generator)  # nobody draws points in the same order
    place = order.argsort()
    truth = torch.full((len(first),), -1)
    truth[: len(HOUSE)] = place[: len(HOUSE)]

    left, right = triangulated(first), triangulated(second[order])
    # Costs are minimised: two edges that are alike pay off, half for each direction. The nodes themselves say nothing.
    unary = torch.zeros(1, len(first), len(second))
    quadratic = -0.5 * likeness(left, right)[None]
    # A node that stays alone pays off a little, too: matching it must bring more than this.
    problem = gm.LawlerProblem(unary, quadratic, left.edges, right.edges, unmatched_cost=-0.6)
    result = gm.solve(problem)

    found = result.assignment[0]
    alone = int((found[len(HOUSE) :] < 0).sum())
    print(f"points of the house matched rightly: {int((found == truth)[: len(HOUSE)].sum())} of {len(HOUSE)}")
    print(f"points of the chimney left alone: {alone} of {len(CHIMNEY)}")
    print(f"cost {result.objective[0]:.3f}; no matching costs less than {result.lower_bound[0]:.3f}")
    print(f"certified optimal: {result.statuses[0] == gm.Status.OPTIMAL}")
    print(f"planted matching recovered: {bool((found == truth).all())}")

    # The picture shows the lines of the pen in place of the triangles.
    drawn = [[step for line in HOUSE_LINES + more for step in pairwise(line)] for more in (CHIMNEY_LINES, TREE_LINES)]
    drawings = gm.Graph(first, torch.tensor(drawn[0])), gm.Graph(second[order], place[torch.tensor(drawn[1])])
    title = "one house, drawn twice"
    viz.save_figure(viz.draw_matching(found, drawings, target=truth, title=title, theme=theme), output)


if __name__ == "__main__":
    run(main)
