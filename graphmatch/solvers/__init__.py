"""Solvers: frozen dataclasses whose fields are their options. Any solver goes with any gradient estimator."""

from graphmatch.solvers.base import Solver, WarmStartSolver
from graphmatch.solvers.branch_and_bound import BranchAndBound
from graphmatch.solvers.brute_force import BruteForce
from graphmatch.solvers.dual_ascent import DualAscent
from graphmatch.solvers.faq import FAQ
from graphmatch.solvers.fusion import Fusion
from graphmatch.solvers.ipfp import IPFP
from graphmatch.solvers.lap import LAP
from graphmatch.solvers.lpmp import LPMP
from graphmatch.solvers.portfolio import Portfolio, quick_solver
from graphmatch.solvers.rrwm import RRWM
from graphmatch.solvers.samples import SampleCall, SamplingSolver
from graphmatch.solvers.sinkhorn import GumbelSinkhorn, Sinkhorn
from graphmatch.solvers.spectral_matching import SpectralMatching
from graphmatch.solvers.tabu import Tabu

__all__ = [
    "FAQ",
    "IPFP",
    "LAP",
    "LPMP",
    "RRWM",
    "BranchAndBound",
    "BruteForce",
    "DualAscent",
    "Fusion",
    "GumbelSinkhorn",
    "Portfolio",
    "SampleCall",
    "SamplingSolver",
    "Sinkhorn",
    "Solver",
    "SpectralMatching",
    "Tabu",
    "WarmStartSolver",
    "quick_solver",
]
