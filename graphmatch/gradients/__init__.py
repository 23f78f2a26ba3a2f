"""Gradient estimators through discrete solutions: frozen dataclasses that go with any solver."""

from graphmatch.gradients.adaptive_imle import AdaptiveIMLE
from graphmatch.gradients.base import Forward, GradientEstimator, Oracle, estimated_solution
from graphmatch.gradients.blackbox import BlackBox
from graphmatch.gradients.fenchel_young import FenchelYoung
from graphmatch.gradients.function_oracle import FunctionOracle
from graphmatch.gradients.identity import NegativeIdentity
from graphmatch.gradients.imle import IMLE
from graphmatch.gradients.perturbed import PerturbedOptimizer
from graphmatch.gradients.score_function import ScoreFunction
from graphmatch.gradients.straight_through import StraightThroughSinkhorn

__all__ = [
    "IMLE",
    "AdaptiveIMLE",
    "BlackBox",
    "FenchelYoung",
    "Forward",
    "FunctionOracle",
    "GradientEstimator",
    "NegativeIdentity",
    "Oracle",
    "PerturbedOptimizer",
    "ScoreFunction",
    "StraightThroughSinkhorn",
    "estimated_solution",
]
