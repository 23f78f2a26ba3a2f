"""`graphmatch bench`: experiments that repeat themselves: gradient estimators, methods for several graphs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graphmatch.cli.console import progress, say
from graphmatch.studies import gradients, gradients_report, multigraph, multigraph_report, report

_GRADIENTS_EPILOG = """\
On a problem with 24 solutions the gradient of the smoothed loss is known. The table says for each estimator its error
(RMSE) relative to that gradient, its bias, its cosine, and how often it vanishes; beside those of graphmatch stand the
estimators of PyEPO, if it is installed.

Exit codes: 0 done, 2 wrong usage or file, 130 interrupted."""
_MULTIGRAPH_EPILOG = """\
Copies of the same points, noisy and shuffled, are matched by stars (one graph, or the barycenter of all others, in the
centre), by all pairs, by synchronisation and by the default. The text says how the time grows with graphs and nodes,
from how many graphs on the barycenter is faster, and what that costs in objective; the tables give time, objective
over the lowest, certified gap, cycle consistency of the pairs alone, and accuracy. Sizes form a cross: all numbers of
graphs at one number of nodes, and the other way round; the largest of both is added if time allows.

Exit codes: 0 done, 2 wrong usage or file, 130 interrupted."""


def add_parser(commands: Any) -> None:
    """Adds the command to the subparsers of argparse."""
    parser = commands.add_parser(
        "bench",
        help="repeat an experiment: how good gradient estimators are, how methods for several graphs scale",
        description="Repeats an experiment and reports its figures.",
    )
    experiments = parser.add_subparsers(dest="experiment", required=True, metavar="experiment")
    _add_gradients(experiments)
    _add_multigraph(experiments)


def _add_gradients(experiments: Any) -> None:
    chosen = _experiment(
        experiments,
        gradients_report.NAME,
        "errors of gradient estimators",
        "Measures gradient estimators against the gradient of the smoothed loss, which enumeration gives.",
        _GRADIENTS_EPILOG,
    )
    default = gradients.GradientStudy()
    _add_list(chosen, "samples", "S", "noise draws per estimate, growing", default.samples)
    numbers = {
        "repetitions": "independent estimates per figure",
        "seed": "of the problem and the noise",
        "other-problems": "further problems, for what depends on the problem",
    }
    for name, text in numbers.items():
        _add_number(chosen, name, text, getattr(default, name.replace("-", "_")))
    _add_outputs(chosen, gradients_report.NAME)
    chosen.set_defaults(run=run_gradients)


def _add_multigraph(experiments: Any) -> None:
    chosen = _experiment(
        experiments,
        multigraph_report.NAME,
        "time and objective of methods for several graphs",
        "Measures how methods for several graphs scale with the number of graphs and of nodes.",
        _MULTIGRAPH_EPILOG,
    )
    default = multigraph.MultiGraphStudy()
    _add_list(chosen, "graphs", "M", "numbers of graphs, growing", default.graphs)
    _add_list(chosen, "nodes", "N", "numbers of nodes, growing", default.nodes)
    numbers = {
        "repetitions": "problems per size",
        "noise": "standard deviation of the noise on features, those of the points have 1",
        "seed": "of all problems",
        "threads": "of PyTorch and the native code",
        "seconds": "no problem is begun that would take longer than is left of this time",
    }
    for name, text in numbers.items():
        _add_number(chosen, name, text, getattr(default, name))
    _add_number(chosen, "memory", "GiB; sizes that need more are left out", default.memory / 2**30)
    _add_outputs(chosen, multigraph_report.NAME)
    chosen.set_defaults(run=run_multigraph)


def _experiment(experiments: Any, name: str, text: str, description: str, epilog: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = experiments.add_parser(
        name,
        help=text,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def _add_list(parser: argparse.ArgumentParser, name: str, metavar: str, text: str, default: tuple[int, ...]) -> None:
    shown = f"{text} (default: {' '.join(map(str, default))})"
    parser.add_argument(f"--{name}", metavar=metavar, type=int, nargs="+", default=list(default), help=shown)


def _add_number(parser: argparse.ArgumentParser, name: str, text: str, default: float) -> None:
    """Adds an option of the type of its default."""
    metavar = "N" if isinstance(default, int) else "X"
    shown = f"{text} (default: {default:g})"
    parser.add_argument(f"--{name}", metavar=metavar, type=type(default), default=default, help=shown)


def _add_outputs(parser: argparse.ArgumentParser, name: str) -> None:
    text = f"folder for {name}.md, {name}.png and {name}.json"
    parser.add_argument("--output", metavar="DIR", type=Path, help=text)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--quiet", action="store_true", help="show no progress on the terminal")


def run_gradients(options: argparse.Namespace) -> int:
    """Runs the gradient study, prints its report and returns the exit code."""
    study = gradients.GradientStudy(
        samples=tuple(options.samples),
        repetitions=options.repetitions,
        seed=options.seed,
        other_problems=options.other_problems,
    )
    return _run(options, gradients_report, lambda show: gradients.run_gradient_study(study, show))


def run_multigraph(options: argparse.Namespace) -> int:
    """Runs the multi-graph study, prints its report and returns the exit code."""
    study = multigraph.MultiGraphStudy(
        graphs=tuple(options.graphs),
        nodes=tuple(options.nodes),
        repetitions=options.repetitions,
        noise=options.noise,
        seed=options.seed,
        threads=options.threads,
        seconds=options.seconds,
        memory=multigraph.gibibytes(options.memory),
    )
    return _run(options, multigraph_report, lambda show: multigraph.run_multigraph_study(study, show))


def _run(options: argparse.Namespace, reports: Any, study: Callable[[Callable[[str], None]], Any]) -> int:
    """Runs a study whose report is made by the module `reports`."""
    if options.output is not None:
        report.check_picture()
        report.check_folder(options.output, reports.NAME)
    with progress(options.quiet) as show:
        result = study(show)
    if options.output is not None:
        reports.write_report(result, options.output)
    say(json.dumps(reports.as_json(result), allow_nan=False) if options.json else reports.as_markdown(result))
    return 0
