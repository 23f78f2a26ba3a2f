"""Pictures of matchings, costs, searches, several graphs and training. They need matplotlib: `graphmatch[viz]`.

Every function that draws returns a figure of matplotlib that needs no display: notebooks show it, `save_figure` writes
it. All take `theme="light"` or `"dark"`; their colours are told apart by colour-blind readers.

Example:
    >>> import torch, graphmatch as gm
    >>> from graphmatch import viz
    >>> graph = gm.Graph(torch.tensor([[0.0, 0], [1, 0], [0, 1]]), torch.tensor([[0, 1], [1, 2]]))
    >>> problem = gm.LawlerProblem(torch.zeros(1, 3, 3), -torch.eye(2)[None], graph.edges, graph.edges)
    >>> figure = viz.draw_matching(gm.solve(problem), (graph, graph), target=[0, 1, 2])
    >>> viz.save_figure(figure, "matching.png").name
    'matching.png'
"""

from graphmatch.viz.animation import AlignmentFrame, animate_alignment
from graphmatch.viz.convergence import Convergence, draw_convergence, record_convergence
from graphmatch.viz.layout import layout_graph
from graphmatch.viz.matching import draw_matching
from graphmatch.viz.matrices import draw_costs
from graphmatch.viz.multigraph import draw_universe
from graphmatch.viz.theme import DARK, LIGHT, Theme, save_figure

__all__ = [
    "DARK",
    "LIGHT",
    "AlignmentFrame",
    "Convergence",
    "Theme",
    "animate_alignment",
    "draw_convergence",
    "draw_costs",
    "draw_matching",
    "draw_universe",
    "layout_graph",
    "record_convergence",
    "save_figure",
]
