"""The picture of `graphmatch solve --plot`: which one a result gets, and what is refused before the search begins."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from graphmatch import _check
from graphmatch.multigraph import MultiGraphResult
from graphmatch.problem import KoopmansBeckmannProblem
from graphmatch.result import MatchResult, Status
from graphmatch.viz import draw_costs, draw_matching, draw_universe, save_figure
from graphmatch.viz.theme import PICTURE_SUFFIXES, THEMES, check_picture_path, require_matplotlib


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds --plot and --theme."""
    endings = ", ".join(PICTURE_SUFFIXES)
    parser.add_argument("--plot", metavar="FILE", type=Path, help=f"draw the answer: a file that ends with {endings}")
    parser.add_argument("--theme", choices=list(THEMES), help="colours of the picture (default: light)")


def check_options(options: argparse.Namespace) -> None:
    """Refuses a picture that could not be drawn or written.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If the name or the folder of the file is unfit, or a theme comes without a picture.
    """
    if options.plot is None:
        if options.theme is not None:
            rule, cure = "come with --plot", "Add --plot FILE, or leave it out."
            raise ValueError(_check.message("solve", "--theme", rule, options.theme, cure))
        return
    check_picture_path("solve", "--plot", options.plot)
    require_matplotlib("solve --plot")
    folder = options.plot.resolve().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        rule, cure = "lie in a folder to write to", "Choose another folder, or make this one."
        raise ValueError(_check.message("solve", "--plot", rule, repr(str(folder)), cure))
    if options.plot.exists() and not options.plot.is_file():
        rule, cure = "name a new or a regular file", "Choose another name."
        raise ValueError(_check.message("solve", "--plot", rule, repr(str(options.plot)), cure))


def drawn(options: argparse.Namespace, result: MatchResult | MultiGraphResult) -> dict[str, Any]:
    """Draws the result where that was asked for, and returns what the answer says about it: None = no matching."""
    if options.plot is None:
        return {}
    status = result.status if isinstance(result, MultiGraphResult) else result.statuses[0]
    if status in (Status.INFEASIBLE, Status.INVALID):
        return {"picture": None}
    save_figure(_figure(result, options.theme or "light"), options.plot)
    return {"picture": str(options.plot)}


def _figure(result: MatchResult | MultiGraphResult, theme: str) -> Any:
    if isinstance(result, MultiGraphResult):
        return draw_universe(result, theme=theme)
    if isinstance(result.problem, KoopmansBeckmannProblem):
        return draw_costs(result, theme=theme)
    return draw_matching(result, theme=theme)
