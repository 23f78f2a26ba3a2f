"""Matching of several graphs at once: problems, methods, consistency."""

from graphmatch.multigraph.base import MultiGraphMethod
from graphmatch.multigraph.labels import cycle_consistency
from graphmatch.multigraph.problem import MultiGraphProblem
from graphmatch.multigraph.result import MultiGraphResult

__all__ = [
    "MultiGraphMethod",
    "MultiGraphProblem",
    "MultiGraphResult",
    "cycle_consistency",
]
