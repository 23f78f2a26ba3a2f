"""Solvers: frozen dataclasses whose fields are their options. Any solver goes with any gradient estimator."""

from graphmatch.solvers.base import Solver
from graphmatch.solvers.brute_force import BruteForce
from graphmatch.solvers.dual_ascent import DualAscent
from graphmatch.solvers.lap import LAP
from graphmatch.solvers.lpmp import LPMP

__all__ = ["LAP", "LPMP", "BruteForce", "DualAscent", "Solver"]
