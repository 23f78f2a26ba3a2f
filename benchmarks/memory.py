"""Memory of one solve, measured in a process that has done nothing else. Linux only.

python -m benchmarks.memory NODES NOISE BATCH [--no-state]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

import graphmatch as gm
from benchmarks.cases import exgra_batch
from benchmarks.machine import ROOT


def solve_apart(nodes: int, noise: float, batch: int, keep_state: bool = True) -> dict[str, Any]:
    """Solves `batch` ExGra instances on one thread of a fresh process.

    Returns:
        seconds, peak_bytes (by which resident memory grew at most; the costs were there before) and gap (the largest).
    """
    command = [sys.executable, "-m", "benchmarks.memory", str(nodes), str(noise), str(batch)]
    command += [] if keep_state else ["--no-state"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(answer.stdout)
    return result


def _resident(entry: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(entry + ":"))


def main() -> int:
    """Solves and prints the measures as JSON; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nodes", type=int)
    parser.add_argument("noise", type=float)
    parser.add_argument("batch", type=int)
    parser.add_argument("--no-state", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tensors = exgra_batch(options.nodes, options.noise, range(options.batch), torch.float32)
    problem = gm.LawlerProblem(*tensors, unmatched_cost=0.0)
    solver = gm.Portfolio(max_gap=1e-4, threads=1, keep_state=not options.no_state)
    ctypes.CDLL(None).malloc_trim(0)  # what drawing the instances has freed would be used first, and not show
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak so far
    before, start = _resident("VmRSS"), time.perf_counter()
    result = gm.solve(problem, solver)
    seconds = time.perf_counter() - start
    measures = {"seconds": seconds, "peak_bytes": _resident("VmHWM") - before, "gap": result.gap.max().item()}
    sys.stdout.write(json.dumps(measures) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
