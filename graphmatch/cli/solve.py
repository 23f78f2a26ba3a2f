"""`graphmatch solve FILE`: a matching of one .dd or .dat file, its cost and a certified lower bound."""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch

import graphmatch
from graphmatch import _check
from graphmatch.cli import multigraph, pictures, qaplib
from graphmatch.cli.console import elapsed_time, gap_text, say, table
from graphmatch.cli.solvers import DEFAULT_SOLVER, add_options, build_solver
from graphmatch.command_line import closest
from graphmatch.io import read_dd, read_qaplib
from graphmatch.io.dd_lines import MultigraphFileError
from graphmatch.problem import KoopmansBeckmannProblem, LawlerProblem, LinearProblem, Problem
from graphmatch.result import MatchResult, Stage, Status

_BEST_KNOWN = ("best_known", "best_known_note", "gap_to_best_known")
_EPILOG = """\
The assignment lists for node 0, 1, 2, ... of graph 1 its node of graph 2; - is unmatched (-1 with --json). The status
OPTIMAL says that the gap between objective and lower bound is certified to be at most --max-gap. Several graphs get
labels instead, the same for nodes that are matched with each other. If a .sln file of the
same name lies beside a .dat file, the gap to its objective is shown, once the problem has confirmed that objective.

--plot draws two graphs with their matching and what it pays, several graphs with their labels, and the matrices of a
.dat file before and after the permutation.

Exit codes: 0 a valid matching was found, 1 there is none, 2 wrong usage or file, 130 interrupted."""


def add_parser(commands: Any) -> None:
    """Adds the command to the subparsers of argparse."""
    parser = commands.add_parser(
        "solve",
        help="solve a .dd or .dat file",
        description="Solves the matching problem of a .dd file or the quadratic assignment problem of a .dat file of "
        "QAPLIB, as they are or with .gz or .xz behind: costs are minimised.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "file", metavar="FILE", type=Path, help="a .dd file of one pair of graphs or of several, or a .dat file"
    )
    add_options(parser)
    parser.add_argument(
        "--output", metavar="FILE", type=Path, help="write the permutation for a .dat file as a .sln file"
    )
    pictures.add_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--quiet", action="store_true", help="show no progress on the terminal")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Solves the file, prints the answer and returns the exit code."""
    if options.output is not None:
        qaplib.check_output(options.file, options.output)
    pictures.check_options(options)
    try:
        problem = _read(options.file)
    except MultigraphFileError:
        return multigraph.run(options)
    if options.method is not None:
        rule, cure = "be left out for a file of one pair of graphs", "Choose a --solver."
        raise ValueError(_check.message("solve", "--method", rule, options.method, cure))
    known = qaplib.BestKnown()
    if isinstance(problem, KoopmansBeckmannProblem):
        known = qaplib.best_known(options.file, problem)
    solver = build_solver(options)
    start = time.perf_counter()
    with elapsed_time(options.time_limit, options.quiet):
        result = graphmatch.solve(_as_taken(problem, options), solver)
    seconds = time.perf_counter() - start
    answer = _answer(result, options, seconds, known) | pictures.drawn(options, result)
    say(json.dumps(answer, allow_nan=False) if options.json else _text(answer, problem))
    if options.output is not None:
        qaplib.write_output(options.output, result)
    return 1 if result.statuses[0] in (Status.INFEASIBLE, Status.INVALID) else 0


def _read(file: Path) -> LawlerProblem | KoopmansBeckmannProblem:
    if qaplib.is_qaplib(file):
        return read_qaplib(file)
    try:
        return read_dd(file)
    except MultigraphFileError:
        raise
    except ValueError as error:
        raise ValueError(f"{error}{misspelt_suffix(file)}") from None


def misspelt_suffix(file: Path) -> str:
    """Returns a sentence about the name of a file of QAPLIB that was read as another format because of its suffix."""
    suffix = next((each.lower() for each in reversed(file.suffixes) if each not in (".gz", ".xz")), "")
    if closest(suffix, [".dat", ".dd"]) != ".dat":
        return ""
    return f" The names of QAPLIB files end with .dat, that of this one with {suffix}."


def _as_taken(problem: LawlerProblem | KoopmansBeckmannProblem, options: argparse.Namespace) -> Problem:
    """Returns the problem in the form that the solver takes: linear for LAP, if it is."""
    if options.solver != "LAP":
        return problem
    if isinstance(problem, KoopmansBeckmannProblem):
        pairs = int(problem.flow.count_nonzero()) * int(problem.distance.count_nonzero())
        linear = torch.zeros_like(problem.flow) if problem.linear is None else problem.linear
        unmatched_cost = None
    else:
        pairs = int(problem.quadratic_costs.count_nonzero())
        linear, unmatched_cost = problem.unary_costs, problem.unmatched_cost
    if pairs:
        rule, cure = "hold no costs of pairs with --solver LAP", "Choose another solver."
        raise ValueError(_check.message("solve", options.file.name, rule, f"{pairs} of them", cure))
    return LinearProblem(linear, unmatched_cost=unmatched_cost)


def _answer(
    result: MatchResult, options: argparse.Namespace, seconds: float, known: qaplib.BestKnown
) -> dict[str, Any]:
    """Returns everything that is printed; numbers that are not finite become None."""
    status = result.statuses[0]
    stage = result.stages[0]
    objective = _finite(result.objective[0].item())
    return {
        "file": str(options.file),
        "solver": options.solver or DEFAULT_SOLVER,
        "stage": None if stage == Stage.NONE else stage.name.lower().replace("_", " "),
        "status": status.name,
        "status_text": status.text,
        "objective": objective,
        "lower_bound": _finite(result.lower_bound[0].item()),
        "gap": _finite(result.gap[0].item()),
        "absolute_gap": _finite(result.absolute_gap[0].item()),
        "best_known": known.objective,
        "best_known_note": known.note,
        "gap_to_best_known": known.gap(objective),
        "iterations": int(result.iterations[0]),
        "seconds": round(seconds, 6),
        "assignment": result.assignment[0].tolist(),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _text(answer: dict[str, Any], problem: Problem) -> str:
    def number(name: str, form: str) -> str:
        return "none" if answer[name] is None else format(answer[name], form)

    assignment = answer["assignment"]
    n1, n2 = (int(count) for count in problem.node_counts())
    rows = {
        "file": answer["file"],
        "solver": answer["solver"],
        "stage": answer["stage"],
        "status": f"{answer['status']}: {answer['status_text']}",
        "objective": number("objective", ".12g"),
        "lower bound": number("lower_bound", ".12g"),
        "gap": gap_text(answer),
        "best known": qaplib.best_known_text(*(answer[name] for name in _BEST_KNOWN)) or None,
        "iterations": str(answer["iterations"]),
        "seconds": f"{answer['seconds']:.3f}",
        "nodes": f"{n1} x {n2}, {sum(node >= 0 for node in assignment)} matched",
        "assignment": " ".join("-" if node < 0 else str(node) for node in assignment),
        "picture": (answer["picture"] or "none: there is no valid matching") if "picture" in answer else None,
    }
    return table({name: value for name, value in rows.items() if value is not None})
