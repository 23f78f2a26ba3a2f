"""Every gradient estimator against the truth: enumerated, in closed form, by quadrature and by finite differences.

python -m benchmarks.studies.gradient_validation               # one core, minutes; goes on where it was stopped
python -m benchmarks.studies.gradient_validation --quick       # seconds
python -m benchmarks.studies.gradient_validation --plot-only   # writes text and picture again
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.machine import RESULTS
from benchmarks.output import write_json, write_text
from benchmarks.studies.gradient_findings import markdown
from benchmarks.studies.gradient_measures import QUICK, Settings, tasks
from benchmarks.studies.gradient_picture import draw
from benchmarks.studies.points import Points, origin

NAME = "gradient_validation"


def run(settings: Settings, folder: Path) -> None:
    """Measures what is missing and writes the JSON file."""
    # Small tensors: more threads only wait for each other.
    torch.set_num_threads(1)
    source = origin("pyepo", "scipy")
    points = Points(folder, NAME, asdict(settings), source)
    found = points.measure(tasks(settings))
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
    parser.add_argument("--quick", action="store_true", help="fewer samples, problems and repetitions")
    parser.add_argument("--output", type=Path, default=RESULTS / "studies", help="folder of the results (%(default)s)")
    parser.add_argument("--plot-only", action="store_true", help="write text and picture of the stored results again")
    options = parser.parse_args(arguments)
    if not options.plot_only:
        run(QUICK if options.quick else Settings(), options.output)
    report(options.output)


if __name__ == "__main__":
    main()
