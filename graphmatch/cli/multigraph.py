"""`graphmatch solve FILE` for a .dd file of several graphs: labels that never contradict each other, and their cost."""

from __future__ import annotations

import argparse
import json
import math
import time
from typing import Any

from graphmatch.cli import pictures
from graphmatch.cli.console import elapsed_time, gap_text, say, table
from graphmatch.cli.solvers import DEFAULT_METHOD, build_method
from graphmatch.io import read_multigraph_dd
from graphmatch.multigraph import MultiGraphProblem, MultiGraphResult, solve_multigraph
from graphmatch.result import Status


def run(options: argparse.Namespace) -> int:
    """Solves the file, prints the answer and returns the exit code."""
    method = build_method(options)
    problem = MultiGraphProblem.from_pairs(read_multigraph_dd(options.file))
    start = time.perf_counter()
    with elapsed_time(options.time_limit, options.quiet):
        result = solve_multigraph(problem, method)
    answer = _answer(result, options, time.perf_counter() - start) | pictures.drawn(options, result)
    say(json.dumps(answer, allow_nan=False) if options.json else _text(answer))
    return 1 if result.status == Status.INFEASIBLE else 0


def _answer(result: MultiGraphResult, options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Returns everything that is printed; numbers that are not finite become None."""
    counts = result.problem.node_counts.tolist()
    pairs = zip(result.problem.pairs.tolist(), result.pair_objectives.tolist(), strict=True)
    return {
        "file": str(options.file),
        "method": options.method or DEFAULT_METHOD,
        "status": result.status.name,
        "status_text": result.status.text,
        "objective": _finite(result.objective),
        "lower_bound": _finite(result.lower_bound),
        "gap": _finite(result.gap),
        "absolute_gap": _finite(result.objective - result.lower_bound),
        "consistency": result.consistency,
        "consistency_before": _finite(result.consistency_before),
        "graphs": len(counts),
        "universe_size": result.universe_size,
        "seconds": round(seconds, 6),
        "labels": [row[:count] for row, count in zip(result.labels.tolist(), counts, strict=True)],
        "pairs": [{"graphs": graphs, "objective": _finite(cost)} for graphs, cost in pairs],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _text(answer: dict[str, Any]) -> str:
    def number(name: str, form: str) -> str:
        return "none" if answer[name] is None else format(answer[name], form)

    rows = {
        "file": answer["file"],
        "method": answer["method"],
        "status": f"{answer['status']}: {answer['status_text']}",
        "objective": number("objective", ".12g"),
        "lower bound": number("lower_bound", ".12g"),
        "gap": gap_text(answer),
        "consistency": f"{answer['consistency']:.3f}, of pairs solved alone {number('consistency_before', '.3f')}",
        "seconds": f"{answer['seconds']:.3f}",
        "graphs": f"{answer['graphs']}, {answer['universe_size']} different labels",
    }
    if "picture" in answer:
        rows["picture"] = answer["picture"] or "none: there is no allowed matching"
    rows |= {f"labels of {graph}": " ".join(map(str, row)) for graph, row in enumerate(answer["labels"])}
    return table(rows)
