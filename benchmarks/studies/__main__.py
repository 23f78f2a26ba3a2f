"""Runs the studies of learning and writes what they found.

    python -m benchmarks.studies                     # all, five seeds: under an hour of two quiet cores
    python -m benchmarks.studies --plot-only         # writes pictures and texts again
    python -m benchmarks.studies --size large --device cuda --workers 4

Stopped, it goes on where it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks.machine import RESULTS
from benchmarks.studies.arms import SIZES, STUDIES, distinct_arms
from benchmarks.studies.learning_report import total_cost, write_study
from benchmarks.studies.runner import Job, Store, results_of, run_jobs

FOLDER = RESULTS / "studies"
SEEDS = (0, 1, 2, 3, 4)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", nargs="+", choices=STUDIES, default=list(STUDIES), help="which (all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="seeds of each arm (%(default)s)")
    parser.add_argument("--size", choices=SIZES, default="small", help="how much every arm trains (%(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where it trains (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each (%(default)s)")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder of the results (%(default)s)")
    parser.add_argument("--plot-only", action="store_true", help="write pictures and texts of the stored results again")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda needs a GPU that PyTorch sees; got none")
    if options.workers < 1:
        parser.error(f"--workers must be at least 1; got {options.workers}")
    size, store = SIZES[options.size], Store.read(options.output / "learning.json")
    jobs = [Job(arm, size, seed, options.device) for seed in options.seeds for arm in distinct_arms(options.studies)]
    if not options.plot_only:
        run_jobs(jobs, store, options.workers)
    every = [arm.address(size, seed, options.device) for seed in options.seeds for arm in distinct_arms(list(STUDIES))]
    done = [store.arms[address] for address in every if address in store.arms]
    cost = total_cost(done, options.workers) if done else ""
    for study in options.studies:
        results = results_of(STUDIES[study], store, size, options.seeds, options.device)
        write_study(study, results, options.output, cost)


if __name__ == "__main__":
    main()
