"""`graphmatch bench gradients`: how far gradient estimators are from the true gradient."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from graphmatch.cli.console import progress, say
from graphmatch.studies import gradients, gradients_report

_EPILOG = """\
On a problem with 24 solutions the gradient of the smoothed loss is known. The table says for each estimator its error
(RMSE) relative to that gradient, its bias, its cosine, and how often it vanishes; beside those of graphmatch stand the
estimators of PyEPO, if it is installed.

Exit codes: 0 done, 2 wrong usage or file, 130 interrupted."""


def add_parser(commands: Any) -> None:
    """Adds the command to the subparsers of argparse."""
    parser = commands.add_parser(
        "bench",
        help="repeat an experiment: how good gradient estimators are",
        description="Repeats an experiment and reports its figures.",
        allow_abbrev=False,
    )
    experiments = parser.add_subparsers(dest="experiment", required=True, metavar="experiment")
    chosen = experiments.add_parser(
        "gradients",
        help="errors of gradient estimators",
        description="Measures gradient estimators against the gradient of the smoothed loss, which enumeration gives.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    default = gradients.GradientStudy()
    chosen.add_argument(
        "--samples",
        metavar="S",
        type=int,
        nargs="+",
        default=list(default.samples),
        help=f"noise draws per estimate, growing (default: {' '.join(map(str, default.samples))})",
    )
    numbers = {
        "repetitions": "independent estimates per figure",
        "seed": "of the problem and the noise",
        "other-problems": "further problems, for what depends on the problem",
    }
    for name, text in numbers.items():
        value = getattr(default, name.replace("-", "_"))
        chosen.add_argument(f"--{name}", metavar="N", type=int, default=value, help=f"{text} (default: {value})")
    chosen.add_argument(
        "--output", metavar="DIR", type=Path, help="folder for gradients.md, gradients.png and gradients.json"
    )
    chosen.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    chosen.add_argument("--quiet", action="store_true", help="show no progress on the terminal")
    chosen.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the study, prints its report and returns the exit code."""
    study = gradients.GradientStudy(
        samples=tuple(options.samples),
        repetitions=options.repetitions,
        seed=options.seed,
        other_problems=options.other_problems,
    )
    if options.output is not None:
        gradients_report.check_picture()
        gradients_report.check_folder(options.output)
    with progress(options.quiet) as show:
        result = gradients.run_gradient_study(study, show)
    if options.output is not None:
        gradients_report.write_report(result, options.output)
    as_json, as_markdown = gradients_report.as_json, gradients_report.as_markdown
    say(json.dumps(as_json(result), allow_nan=False) if options.json else as_markdown(result))
    return 0
