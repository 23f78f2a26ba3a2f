"""Objectives by name."""

from __future__ import annotations

import inspect
from typing import Any

from exgra_adapter.objectives.assignment import AssignmentPrediction
from exgra_adapter.objectives.base import Objective
from exgra_adapter.objectives.contrastive import InfoNCE, SigLIP
from exgra_adapter.objectives.matching import BarycenterObjective, PairwiseObjective
from exgra_adapter.objectives.transport import OptimalTransport

_CLASSES: dict[str, type[Objective]] = {
    "infonce": InfoNCE,
    "siglip": SigLIP,
    "optimal_transport": OptimalTransport,
    "vlap": AssignmentPrediction,
    "pairwise": PairwiseObjective,
    "barycenter": BarycenterObjective,
}
OBJECTIVES = ("none", "extended_text", *_CLASSES)


def build_objective(name: str, dim: int, **options: Any) -> Objective | None:
    """Builds an alignment objective; None for `none` and `extended_text`, which align nothing.

    Args:
        name: One of `OBJECTIVES`: none (autoregressive loss alone), extended_text (the same, on the extended answers as
            well), infonce, siglip, optimal_transport, vlap, pairwise, barycenter.
        dim: Length d of the views, the language model's hidden size.
        **options: Those of the objective's class; `objective_options` lists them.

    Raises:
        ValueError: The name or an option is unknown, or an option breaks its rule.

    Example:
        >>> sorted(build_objective("infonce", dim=8, views=("image", "extended")).needs)
        ['extended']
        >>> build_objective("none", dim=8) is None
        True
    """
    known = objective_options(name)
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(
            f"build_objective: options must be among [{', '.join(sorted(known))}] for {name}; got {', '.join(unknown)}"
            ". Leave out what the objective does not have."
        )
    return _CLASSES[name](dim, **options) if name in _CLASSES else None


def objective_options(name: str) -> frozenset[str]:
    """Returns the options that `build_objective` takes for a name, empty for `none` and `extended_text`.

    Raises:
        ValueError: The name is unknown.

    Example:
        >>> sorted(objective_options("siglip"))
        ['bias', 'temperature', 'views']
    """
    if name not in OBJECTIVES:
        raise ValueError(f"build_objective: name must be one of {', '.join(OBJECTIVES)}; got {name!r}. Pick one.")
    if name not in _CLASSES:
        return frozenset()
    return frozenset(inspect.signature(_CLASSES[name]).parameters) - {"dim"}
