"""Checks of solvers and gradient estimators of your own: tiny problems with all their solutions, and what must hold."""

from graphmatch.testing.checker import check_gradient_estimator
from graphmatch.testing.enumeration import EnumeratedProblem, Gibbs, SmoothedGradient
from graphmatch.testing.report import GradientReport
from graphmatch.testing.statistics import Bias, bias_of, mean_test, relative_rmse

__all__ = [
    "Bias",
    "EnumeratedProblem",
    "Gibbs",
    "GradientReport",
    "SmoothedGradient",
    "bias_of",
    "check_gradient_estimator",
    "mean_test",
    "relative_rmse",
]
