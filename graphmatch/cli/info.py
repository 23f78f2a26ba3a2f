"""`graphmatch info`: what is installed and what it can do; `graphmatch info FILE`: what a .dd or .dat file holds."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import sys
from collections.abc import Callable
from math import comb
from pathlib import Path
from typing import Any

import torch

import graphmatch
from graphmatch import _ops
from graphmatch.cli import qaplib
from graphmatch.cli.console import say, table
from graphmatch.cli.solve import misspelt_suffix
from graphmatch.cli.solvers import SOLVERS
from graphmatch.io import read_dd, read_multigraph_dd, read_qaplib
from graphmatch.io.dd_lines import MultigraphFileError
from graphmatch.problem import LawlerProblem

_PACKAGES = ("numpy", "scipy", "matplotlib", "networkx", "torch_geometric", "transformers", "accelerate", "peft")
_GRADIENTS = (
    "AdaptiveIMLE",
    "BlackBox",
    "FenchelYoung",
    "IMLE",
    "NegativeIdentity",
    "PerturbedOptimizer",
    "ScoreFunction",
    "StraightThroughSinkhorn",
)


def add_parser(commands: Any) -> None:
    """Adds the command to the subparsers of argparse."""
    parser = commands.add_parser(
        "info",
        help="what is installed, or what a .dd or .dat file holds",
        description="Without FILE: versions, native modules, instruction set, threads, devices, solvers: text to paste "
        "into a bug report. With FILE: sizes and costs.",
    )
    text = "a .dd file, of one pair of graphs or many, or a .dat file of QAPLIB"
    parser.add_argument("file", metavar="FILE", type=Path, nargs="?", help=text)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints what was asked for and returns the exit code."""
    if options.file is None:
        say(json.dumps(_installation()) if options.json else table(_installation_rows()))
        return 0
    described, rows = _described(options.file)
    content = {"file": str(options.file), **described}
    say(json.dumps(content) if options.json else table(rows(content)))
    return 0


def _described(file: Path) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, str]]]:
    """Returns what a file holds, and the function that makes lines of a table of it."""
    if qaplib.is_qaplib(file):
        return qaplib.summary(file, read_qaplib(file)), qaplib.summary_rows
    try:
        return _summary(read_dd(file)), _problem_rows
    except MultigraphFileError:
        return _multigraph_summary(read_multigraph_dd(file)), _multigraph_rows
    except ValueError as error:
        raise ValueError(f"{error}{misspelt_suffix(file)}") from None


def _installation() -> dict[str, Any]:
    devices = _ops.cuda_devices()
    return {
        "graphmatch": graphmatch.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "packages": {name: _version(name) for name in _PACKAGES},
        "system": platform.platform(),
        "processor": _processor(),
        "instruction_set": _instruction_set(),
        "compiler": _compiler(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda_module": devices is not None,
        "cuda_devices": devices,
        "cuda_of_torch": torch.version.cuda,
        "gpus": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
        "solvers": list(SOLVERS),
        "gradients": list(_GRADIENTS),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    return _cpu_line("model name") or platform.processor() or platform.machine()


def _instruction_set() -> str:
    """Returns the instruction set whose versions of the native functions this processor gets when they are loaded."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return "baseline"
    if sys.platform != "linux" or "GCC" not in _compiler():  # others compile one version
        return "SSE2"
    flags = _cpu_line("flags").split()
    return next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "SSE2")


def _compiler() -> str:
    """Returns what the compiler of the native module left in it about itself; empty if nothing."""
    module = importlib.util.find_spec("graphmatch._native_cpu")
    content = Path(module.origin).read_bytes() if module is not None and module.origin else b""
    found = re.search(rb"GCC: \([^)\0]*\) [\d.]+|clang version [\d.]+", content)
    return found[0].decode("ascii", "replace").replace("GCC: ", "GCC ") if found else ""


def _cpu_line(name: str) -> str:
    """Returns a line of the kernel's description of the processor; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), "")


def _installation_rows() -> dict[str, str]:
    content = _installation()
    devices = content["cuda_devices"]
    installed = [f"{name} {version}" for name, version in content["packages"].items() if version]
    missing = [name for name, version in content["packages"].items() if not version]
    of_torch = f"{content['cuda_of_torch'] or 'none'}; {', '.join(content['gpus']) or 'no GPU'}"
    return {
        "graphmatch": content["graphmatch"],
        "python": content["python"],
        "torch": content["torch"],
        "packages": ", ".join(installed) + (f"; not installed: {', '.join(missing)}" if missing else ""),
        "system": content["system"],
        "processor": content["processor"],
        "instruction set": content["instruction_set"],
        "threads": f"{content['threads']} (torch.get_num_threads(); solvers take threads=...), {content['cpus']} CPUs",
        "CPU module": f"built by {content['compiler'] or 'an unknown compiler'}",
        "CUDA module": "not built: nvcc was not found when graphmatch was built"
        if devices is None
        else f"built, {devices} device(s) visible",
        "CUDA of torch": of_torch,
        "solvers": ", ".join(content["solvers"]),
        "gradients": ", ".join(content["gradients"]),
    }


def _summary(problem: LawlerProblem) -> dict[str, Any]:
    """Returns sizes, densities and ranges of costs; a density is the share of what a matching could use."""
    unary, quadratic = problem.unary_costs[0], problem.quadratic_costs[0]
    allowed = unary.isfinite()
    assignments, pairs = int(allowed.sum()), int(quadratic.count_nonzero())
    conflicts = sum(comb(count, 2) for axis in (0, 1) for count in allowed.sum(axis).tolist())
    return {
        "nodes": list(unary.shape),
        "assignments": assignments,
        "assignment_density": _share(assignments, unary.numel()),
        "assignment_costs": _range(unary[allowed]),
        "pairs": pairs,
        "pair_density": _share(pairs, comb(assignments, 2) - conflicts),
        "pair_costs": _range(quadratic[quadratic != 0]),
        "edges": list(quadratic.shape),
    }


def _multigraph_summary(problems: dict[tuple[int, int], LawlerProblem]) -> dict[str, Any]:
    return {
        "graphs": len({graph for pair in problems for graph in pair}),
        "problems": [{"graphs": list(pair), **_summary(problem)} for pair, problem in problems.items()],
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _range(costs: torch.Tensor) -> list[float] | None:
    return [float(costs.min()), float(costs.max())] if costs.numel() else None


def _problem_rows(content: dict[str, Any]) -> dict[str, str]:
    n1, n2 = content["nodes"]
    e1, e2 = content["edges"]
    return {
        "file": content["file"],
        "nodes": f"{n1} x {n2}",
        "assignments": f"{content['assignments']}, {_percent(content['assignment_density'])} of all",
        "costs of assignments": _range_text([content["assignment_costs"]]),
        "pairs with a cost": f"{content['pairs']}, {_percent(content['pair_density'])} of those a matching can use",
        "costs of pairs": _range_text([content["pair_costs"]]),
        "edges": f"{e1} of graph 1 x {e2} of graph 2, {_percent(_share(content['pairs'], e1 * e2))} with a cost",
    }


def _multigraph_rows(content: dict[str, Any]) -> dict[str, str]:
    problems = content["problems"]
    nodes = [count for problem in problems for count in problem["nodes"]]
    graphs = content["graphs"]
    return {
        "file": content["file"],
        "graphs": f"{graphs} of {_extent(nodes)} nodes",
        "pair problems": f"{len(problems)} of {comb(graphs, 2)}",
        "assignments": f"{_extent([problem['assignments'] for problem in problems])} per problem",
        "costs of assignments": _range_text([problem["assignment_costs"] for problem in problems]),
        "pairs with a cost": f"{_extent([problem['pairs'] for problem in problems])} per problem",
        "costs of pairs": _range_text([problem["pair_costs"] for problem in problems]),
    }


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _extent(counts: list[int]) -> str:
    lowest, highest = min(counts), max(counts)
    return str(lowest) if lowest == highest else f"{lowest} to {highest}"


def _range_text(ranges: list[list[float] | None]) -> str:
    known = [limits for limits in ranges if limits is not None]
    if not known:
        return "none"
    return f"{min(limits[0] for limits in known):g} to {max(limits[1] for limits in known):g}"
