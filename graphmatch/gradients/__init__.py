"""Gradient estimators through discrete solutions: frozen dataclasses that go with any solver."""

from graphmatch.gradients.base import GradientEstimator, Oracle, estimated_solution
from graphmatch.gradients.blackbox import BlackBox
from graphmatch.gradients.imle import IMLE

__all__ = ["IMLE", "BlackBox", "GradientEstimator", "Oracle", "estimated_solution"]
