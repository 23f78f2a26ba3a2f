"""Matching of several graphs at once: problems, methods, consistency."""

from graphmatch.multigraph.base import MultiGraphMethod
from graphmatch.multigraph.best import Best
from graphmatch.multigraph.labels import cycle_consistency
from graphmatch.multigraph.local_search import LocalSearch
from graphmatch.multigraph.problem import MultiGraphProblem
from graphmatch.multigraph.result import MultiGraphResult
from graphmatch.multigraph.sequential import SequentialConstruction
from graphmatch.multigraph.solve import solve_multigraph

__all__ = [
    "Best",
    "LocalSearch",
    "MultiGraphMethod",
    "MultiGraphProblem",
    "MultiGraphResult",
    "SequentialConstruction",
    "cycle_consistency",
    "solve_multigraph",
]
