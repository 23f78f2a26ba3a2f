"""Alignment objectives: the graph-matching alignment and the baselines it is compared with, by one name."""

from exgra_adapter.objectives.base import BatchViews, Objective, ObjectiveResult
from exgra_adapter.objectives.build import OBJECTIVES, build_objective, objective_options

__all__ = ["OBJECTIVES", "BatchViews", "Objective", "ObjectiveResult", "build_objective", "objective_options"]
