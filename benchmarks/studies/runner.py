"""Runs arms in worker processes and keeps every finished one, so that a killed run goes on where it was."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers.utils import logging as transformers_logging

from benchmarks.machine import provenance
from benchmarks.output import write_json
from benchmarks.studies.arms import Arm, Size
from benchmarks.studies.corruption import corrupt
from benchmarks.studies.learning import SeedRun, run_arm
from exgra_adapter.data.records import read_records

Entry = dict[str, Any]


@dataclass
class Store:
    """Results by address in one JSON file, which is complete after every arm."""

    path: Path
    arms: dict[str, Entry] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Store:
        """Reads what is there; nothing where there is no file yet."""
        return cls(path, json.loads(path.read_text(encoding="utf-8"))["arms"] if path.is_file() else {})

    def add(self, address: str, entry: Entry, origin: Entry) -> None:
        """Keeps one more arm, and where the last one was computed."""
        self.arms[address] = entry
        write_json(self.path, {**origin, "arms": self.arms})


@dataclass(frozen=True)
class Job:
    """One arm of one seed."""

    arm: Arm
    size: Size
    seed: int
    device: str

    @property
    def address(self) -> str:
        return self.arm.address(self.size, self.seed, self.device)


def run_jobs(jobs: Sequence[Job], store: Store, workers: int) -> None:
    """Runs what the store does not hold yet, seed by seed, each worker in one thread."""
    todo = [job for job in jobs if job.address not in store.arms]
    origin = {**provenance(), "threads": 1, "workers": workers}
    with (
        tempfile.TemporaryDirectory(prefix="studies-") as folder,
        tqdm(total=len(jobs), initial=len(jobs) - len(todo), unit="arm", smoothing=0) as progress,
    ):
        for job, entry in _finished(todo, Path(folder), workers):
            progress.set_description(f"seed {job.seed}")
            store.add(job.address, {**entry, "commit": origin["commit"]}, origin)
            progress.update()


def _finished(todo: Sequence[Job], folder: Path, workers: int) -> Iterator[tuple[Job, Entry]]:
    """Yields arms as they finish. Stage 1 of a seed comes first, and its arms begin when it is done."""
    if not todo:
        return
    seeds = list(dict.fromkeys(job.seed for job in todo))
    with _pool(workers, todo[0].device) as pool:
        shared: dict[Future[tuple[SeedRun, float]], int] = {}
        arms: dict[Future[Entry], Job] = {}
        waiting = list(seeds)
        while waiting or shared or arms:
            # No more at once than workers: seeds stay in order, and a stage 1 does not wait behind all arms before it.
            while waiting and len(shared) + len(arms) < workers:
                seed = waiting.pop(0)
                job = next(job for job in todo if job.seed == seed)
                shared[pool.submit(_prepare, job.size, seed, folder / str(seed))] = seed
            done, _ = wait([*shared, *arms], return_when=FIRST_COMPLETED)
            for future in done:
                if future in shared:
                    seed = shared.pop(future)
                    run, seconds = future.result()
                    for job in (job for job in todo if job.seed == seed):
                        arms[pool.submit(_run, job, run, seconds)] = job
                else:
                    yield arms.pop(future), future.result()


@contextmanager
def _pool(workers: int, device: str) -> Iterator[ProcessPoolExecutor]:
    """Worker processes with one thread each, on the CPU unless a GPU is asked for."""
    settings = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    if device == "cpu":
        settings["CUDA_VISIBLE_DEVICES"] = ""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, context, initializer=_start) as pool:
            yield pool
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _start() -> None:
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()


def _prepare(size: Size, seed: int, folder: Path) -> tuple[SeedRun, float]:
    begun = time.process_time()
    run = SeedRun.prepare(size.demo, seed, folder, size.width, size.pretraining)
    return run, time.process_time() - begun


def _run(job: Job, run: SeedRun, shared_seconds: float) -> Entry:
    records = None
    if job.arm.corruption is not None and job.arm.share > 0:
        records = corrupt(read_records(run.data.conversations), job.arm.corruption, job.arm.share, job.seed)
    found = run_arm(run, job.address, job.arm.options, records)
    for folder in run.folder.glob(f"{job.address}*"):
        shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
    return {
        "arm": job.arm.content(),
        "seed": job.seed,
        "sizes": job.size.content(),
        "device": job.device,
        "shared_cpu_seconds": round(shared_seconds, 2),
        **found,
    }


def results_of(arms: Mapping[str, Arm], store: Store, size: Size, seeds: Sequence[int], device: str) -> dict[str, Any]:
    """Looks up the arms of a study: by label, the results of the seeds that are done."""
    return {
        label: {
            seed: store.arms[address] for seed in seeds if (address := arm.address(size, seed, device)) in store.arms
        }
        for label, arm in arms.items()
    }
