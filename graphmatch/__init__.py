"""Batched, differentiable quadratic-assignment graph matching for PyTorch.

One native call solves a whole batch of matching problems and returns the assignments, their objectives and certified
lower bounds; gradient estimators send useful gradients through the discrete solutions. Costs are minimised everywhere.
"""

from graphmatch import io, testing, viz
from graphmatch.affinity import cosine_affinity, edge_features
from graphmatch.alignment import AlignmentDetails, BarycenterAlignment, PairwiseAlignment
from graphmatch.assignment import linear_assignment
from graphmatch.batch import stack_problems
from graphmatch.gradients import (
    IMLE,
    AdaptiveIMLE,
    BlackBox,
    FenchelYoung,
    GradientEstimator,
    NegativeIdentity,
    PerturbedOptimizer,
    ScoreFunction,
    StraightThroughSinkhorn,
)
from graphmatch.graph_affinities import graph_affinities
from graphmatch.graphs import Graph, complete_graph, knn_graph
from graphmatch.layers import MatchingLayer
from graphmatch.losses import hamming_loss, masked_mean, retrieval_accuracy
from graphmatch.message_passing import GraphConvolution, MessagePassing
from graphmatch.multigraph import (
    AllPairs,
    BarycenterEstimate,
    Best,
    LocalSearch,
    MultiGraphMethod,
    MultiGraphProblem,
    MultiGraphResult,
    SequentialConstruction,
    SgaDistance,
    SoftBarycenter,
    SoftMatching,
    Star,
    StructuredGraph,
    Synchronize,
    barycenter_graph,
    cycle_consistency,
    estimate_barycenter,
    fused_gromov_wasserstein,
    fused_gromov_wasserstein_barycenter,
    geodesic,
    sga_distance,
    sga_distances,
    solve_multigraph,
    synchronize_matchings,
)
from graphmatch.problem import KoopmansBeckmannProblem, LawlerProblem, LinearProblem, Problem
from graphmatch.quadratic import QuadraticAssignmentResult, quadratic_assignment
from graphmatch.result import LinearState, MatchResult, SolverState, Stage, Status
from graphmatch.solve import solve
from graphmatch.solvers import (
    FAQ,
    IPFP,
    LAP,
    LPMP,
    RRWM,
    BranchAndBound,
    BruteForce,
    DualAscent,
    Fusion,
    GumbelSinkhorn,
    Portfolio,
    Sinkhorn,
    Solver,
    SpectralMatching,
    Tabu,
)
from graphmatch.supervised import SupervisedMatchingLoss

__version__ = "0.1.0"

__all__ = [
    "FAQ",
    "IMLE",
    "IPFP",
    "LAP",
    "LPMP",
    "RRWM",
    "AdaptiveIMLE",
    "AlignmentDetails",
    "AllPairs",
    "BarycenterAlignment",
    "BarycenterEstimate",
    "Best",
    "BlackBox",
    "BranchAndBound",
    "BruteForce",
    "DualAscent",
    "FenchelYoung",
    "Fusion",
    "GradientEstimator",
    "Graph",
    "GraphConvolution",
    "GumbelSinkhorn",
    "KoopmansBeckmannProblem",
    "LawlerProblem",
    "LinearProblem",
    "LinearState",
    "LocalSearch",
    "MatchResult",
    "MatchingLayer",
    "MessagePassing",
    "MultiGraphMethod",
    "MultiGraphProblem",
    "MultiGraphResult",
    "NegativeIdentity",
    "PairwiseAlignment",
    "PerturbedOptimizer",
    "Portfolio",
    "Problem",
    "QuadraticAssignmentResult",
    "ScoreFunction",
    "SequentialConstruction",
    "SgaDistance",
    "Sinkhorn",
    "SoftBarycenter",
    "SoftMatching",
    "Solver",
    "SolverState",
    "SpectralMatching",
    "Stage",
    "Star",
    "Status",
    "StraightThroughSinkhorn",
    "StructuredGraph",
    "SupervisedMatchingLoss",
    "Synchronize",
    "Tabu",
    "barycenter_graph",
    "complete_graph",
    "cosine_affinity",
    "cycle_consistency",
    "edge_features",
    "estimate_barycenter",
    "fused_gromov_wasserstein",
    "fused_gromov_wasserstein_barycenter",
    "geodesic",
    "graph_affinities",
    "hamming_loss",
    "io",
    "knn_graph",
    "linear_assignment",
    "masked_mean",
    "quadratic_assignment",
    "retrieval_accuracy",
    "sga_distance",
    "sga_distances",
    "solve",
    "solve_multigraph",
    "stack_problems",
    "synchronize_matchings",
    "testing",
    "viz",
]
