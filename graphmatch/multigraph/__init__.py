"""Matching of several graphs at once: problems, methods, consistency, distances and barycenters."""

from graphmatch.multigraph.all_pairs import AllPairs
from graphmatch.multigraph.barycenter import BarycenterEstimate, barycenter_graph, estimate_barycenter
from graphmatch.multigraph.base import MultiGraphMethod
from graphmatch.multigraph.best import Best
from graphmatch.multigraph.distance import SgaDistance, geodesic, sga_distance, sga_distances
from graphmatch.multigraph.gromov_wasserstein import (
    SoftBarycenter,
    SoftMatching,
    fused_gromov_wasserstein,
    fused_gromov_wasserstein_barycenter,
)
from graphmatch.multigraph.labels import cycle_consistency
from graphmatch.multigraph.local_search import LocalSearch
from graphmatch.multigraph.problem import MultiGraphProblem
from graphmatch.multigraph.result import MultiGraphResult
from graphmatch.multigraph.sequential import SequentialConstruction
from graphmatch.multigraph.solve import solve_multigraph
from graphmatch.multigraph.star import Star
from graphmatch.multigraph.structured import StructuredGraph
from graphmatch.multigraph.synchronization import synchronize_matchings
from graphmatch.multigraph.synchronize import Synchronize

__all__ = [
    "AllPairs",
    "BarycenterEstimate",
    "Best",
    "LocalSearch",
    "MultiGraphMethod",
    "MultiGraphProblem",
    "MultiGraphResult",
    "SequentialConstruction",
    "SgaDistance",
    "SoftBarycenter",
    "SoftMatching",
    "Star",
    "StructuredGraph",
    "Synchronize",
    "barycenter_graph",
    "cycle_consistency",
    "estimate_barycenter",
    "fused_gromov_wasserstein",
    "fused_gromov_wasserstein_barycenter",
    "geodesic",
    "sga_distance",
    "sga_distances",
    "solve_multigraph",
    "synchronize_matchings",
]
