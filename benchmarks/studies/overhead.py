"""What the alignment costs beside the autoregressive loss alone: time and memory over graph size and model width.

Steps of tiny models, the optimizer included, in turns with the same step without alignment; the peak memory of each in
a process of its own (Linux). Run it on a machine that does nothing else.

    python -m benchmarks.studies.overhead               # two cores, minutes; goes on where it was stopped
    python -m benchmarks.studies.overhead --quick       # one small point
    python -m benchmarks.studies.overhead --plot-only   # writes text and picture again
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import RESULTS, ROOT
from benchmarks.output import write_json, write_text
from benchmarks.studies.overhead_figures import ALIGNED, ALONE
from benchmarks.studies.overhead_picture import draw
from benchmarks.studies.overhead_report import markdown
from benchmarks.studies.points import Points, Task, origin

NAME = "overhead"
MEMORY_ARMS = (ALONE, ALIGNED)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes of the study: a cross of all sample numbers at one size and all sizes at one number of samples.

    Attributes:
        samples: Samples per batch, nodes of each graph.
        sizes: Width of the language model in multiples of 128.
        centre: Samples and size where the cross meets.
        seconds: Time of the measured steps per point.
        threads: Of PyTorch and the solver.
    """

    samples: tuple[int, ...] = (4, 8, 16, 32, 64)
    sizes: tuple[int, ...] = (1, 2, 3, 4)
    centre: tuple[int, int] = (16, 2)
    seconds: float = 15.0
    threads: int = 2

    def places(self) -> list[tuple[int, int]]:
        """Returns samples and size of all points."""
        cross = [(samples, self.centre[1]) for samples in self.samples]
        return cross + [(self.centre[0], size) for size in self.sizes if size != self.centre[1]]


QUICK = Settings(samples=(4,), sizes=(1,), centre=(4, 1), seconds=0.5, threads=1)


def tasks(settings: Settings, scratch: str) -> dict[str, Task]:
    """Returns all points of the study by name; each is measured in a process of its own."""
    found: dict[str, Task] = {}
    for samples, size in settings.places():
        common = ["--samples", str(samples), "--size", str(size), "--threads", str(settings.threads)]
        timed = ["time", *common, "--seconds", str(settings.seconds)]
        found[f"time | {samples} | {size}"] = partial(measure_apart, timed, scratch)
        for arm in MEMORY_ARMS:
            found[f"memory | {samples} | {size} | {arm}"] = partial(
                measure_apart, ["memory", *common, "--arm", arm], scratch
            )
    return found


def measure_apart(arguments: list[str], scratch: str) -> dict[str, Any]:
    """Runs `overhead_point` with these arguments in a fresh process and returns what it prints.

    Args:
        arguments: Of its command line.
        scratch: Folder for its data.

    Raises:
        RuntimeError: It failed; with the end of what it said.
    """
    command = [sys.executable, "-m", "benchmarks.studies.overhead_point", *arguments]
    environment = {**os.environ, "TMPDIR": scratch, "HF_HUB_OFFLINE": "1"}
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise RuntimeError(f"{' '.join(command[2:])} failed:\n{answer.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


def run(settings: Settings, folder: Path) -> None:
    """Measures what is missing and writes the JSON file."""
    torch.set_num_threads(settings.threads)
    source = origin("transformers")
    points = Points(folder, NAME, asdict(settings), source)
    with tempfile.TemporaryDirectory(prefix="overhead-") as scratch:
        found = points.measure(tasks(settings, scratch))
    write_json(folder / f"{NAME}.json", {"settings": asdict(settings), **source, "points": found})
    points.finish()


def report(folder: Path) -> None:
    """Writes text and picture from the JSON file."""
    result = json.loads((folder / f"{NAME}.json").read_text(encoding="utf-8"))
    draw(result, folder / f"{NAME}.png")
    write_text(folder / f"{NAME}.md", markdown(result, f"{NAME}.png"))


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one small point")
    parser.add_argument("--output", type=Path, default=RESULTS / "studies", help="folder of the results (%(default)s)")
    parser.add_argument("--plot-only", action="store_true", help="write text and picture of the stored results again")
    options = parser.parse_args(arguments)
    if not options.plot_only:
        run(QUICK if options.quick else Settings(), options.output)
    report(options.output)


if __name__ == "__main__":
    main()
