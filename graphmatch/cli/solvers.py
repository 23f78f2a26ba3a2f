"""The solvers and multi-graph methods by name, for command lines and configuration files."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import graphmatch
from graphmatch import _check

_NAMES = (
    "Portfolio",
    "DualAscent",
    "Tabu",
    "FAQ",
    "Fusion",
    "BranchAndBound",
    "BruteForce",
    "LPMP",
    "LAP",
    "SpectralMatching",
    "RRWM",
    "IPFP",
)
SOLVERS: dict[str, type[Any]] = {name: getattr(graphmatch, name) for name in _NAMES if hasattr(graphmatch, name)}
_METHOD_NAMES = ("Best", "LocalSearch", "SequentialConstruction", "Star", "AllPairs", "Synchronize")
METHODS: dict[str, type[Any]] = {name: getattr(graphmatch, name) for name in _METHOD_NAMES}
DEFAULT_METHOD = _METHOD_NAMES[0]
# The first of the list that is there: strongest first, for quadratic costs.
DEFAULT_SOLVER = next(iter(SOLVERS))

_OPTIONS: dict[str, tuple[type[Any], str, str]] = {
    "time_limit": (float, "S", "seconds for the whole search"),
    "max_gap": (float, "G", "relative gap that counts as optimal"),
    "effort": (float, "E", "factor on the budgets of the portfolio: 0.1 is hasty, 10 is thorough"),
    "max_iterations": (int, "N", "limit of iterations"),
    "seed": (int, "N", "seed of random choices"),
    "threads": (int, "N", "CPU threads"),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds --solver and the options that solvers may have; None = the default of the solver."""
    parser.add_argument(
        "--solver",
        choices=SOLVERS,
        metavar="NAME",
        help=f"{', '.join(SOLVERS)} (default: {DEFAULT_SOLVER})",
    )
    parser.add_argument(
        "--method",
        choices=METHODS,
        metavar="NAME",
        help=f"for files of several graphs: {', '.join(METHODS)} (default: {DEFAULT_METHOD})",
    )
    for name, (kind, metavar, text) in _OPTIONS.items():
        parser.add_argument(_flag(name), type=kind, metavar=metavar, help=f"{text} (default: that of the solver)")


def build_solver(options: argparse.Namespace) -> Any:
    """Returns the solver with the options that were given; refuses those that it does not have."""
    name = options.solver or DEFAULT_SOLVER
    return _built(SOLVERS[name], f"--solver {name}", options)


def build_method(options: argparse.Namespace) -> Any:
    """Returns the multi-graph method with the options that were given; a chosen solver is that of the pairs."""
    name = options.method or DEFAULT_METHOD
    kind = METHODS[name]
    method = _built(kind, f"--method {name}", options)
    if options.solver is None:
        return method
    if "solver" not in {field.name for field in dataclasses.fields(kind)}:
        rule = f"be left out with --method {name}, which solves no pairs on their own"
        raise ValueError(_check.message("solve", "--solver", rule, options.solver, "Or choose another method."))
    return dataclasses.replace(method, solver=SOLVERS[options.solver]())


def _built(kind: type[Any], choice: str, options: argparse.Namespace) -> Any:
    given = {name: getattr(options, name) for name in _OPTIONS if getattr(options, name) is not None}
    known = {field.name for field in dataclasses.fields(kind)}
    for name in given:
        if name not in known:
            theirs = ", ".join(_flag(other) for other in _OPTIONS if other in known) or "none of these options"
            rule = f"be left out with {choice}, which takes {theirs}"
            raise ValueError(_check.message("solve", _flag(name), rule, given[name], "Or choose another one."))
    return kind(**given)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
