"""Command line of graphmatch: `graphmatch info` says what is installed and what it can do."""

from __future__ import annotations

import argparse
import platform
import sys

import torch

import graphmatch
from graphmatch import _ops


def _info() -> str:
    devices = _ops.cuda_devices()
    rows = {
        "graphmatch": graphmatch.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": f"{torch.get_num_threads()} (torch.get_num_threads(); solvers take threads=...)",
        "CPU module": "built",
        "CUDA module": "not built: nvcc was not found when graphmatch was built"
        if devices is None
        else f"built, {devices} device(s) visible",
        "solvers": "LAP, DualAscent, BruteForce",
        "gradients": "BlackBox, IMLE",
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="graphmatch",
        description="Batched, differentiable graph matching for PyTorch.",
        epilog="example:\n  graphmatch info",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"graphmatch {graphmatch.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("info", help="versions, native modules, threads, devices")
    parser.parse_args(arguments)
    sys.stdout.write(_info() + "\n")
    return 0
