"""Memory of one solve, measured in a process that has done nothing else.

python -m benchmarks.memory NODES NOISE BATCH [--no-state]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import torch

import graphmatch as gm
from benchmarks.cases import exgra_batch
from benchmarks.machine import ROOT
from benchmarks.resources import watching


def solve_apart(nodes: int, noise: float, batch: int, keep_state: bool = True) -> dict[str, Any]:
    """Solves `batch` ExGra instances on one thread of a fresh process.

    Returns:
        seconds, peak_bytes (by which resident memory grew at most; the costs were there before; None where the system
        does not tell), objective (the mean) and gap (the largest).
    """
    command = [sys.executable, "-m", "benchmarks.memory", str(nodes), str(noise), str(batch)]
    command += [] if keep_state else ["--no-state"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(answer.stdout)
    return result


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
    with watching() as usage:
        start = time.perf_counter()
        result = gm.solve(problem, solver)
        seconds = time.perf_counter() - start
    measures = {
        "seconds": seconds,
        "peak_bytes": usage.memory_bytes,
        "objective": result.objective.mean().item(),
        "gap": result.gap.max().item(),
    }
    sys.stdout.write(json.dumps(measures) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
