"""The command `exgra-med evaluate compare`: is one model better than the other?"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from exgra_adapter.atomic import write_json
from exgra_adapter.console import natural, positive, say
from exgra_adapter.evaluation.compare import Difference, ItemValues, Key, compare_items, read_items
from exgra_adapter.evaluation.files import read_answers, read_candidates
from exgra_adapter.evaluation.questions import Questions, number_repeated_predictions, read_questions
from exgra_adapter.evaluation.tables import LEGACY_NAMES, STRICT_NAMES
from exgra_adapter.evaluation.vqa_report import report_scores

_DESCRIPTION = """\
Compares two models on the same questions: two scores files
  exgra-med evaluate compare new/scores.json old/scores.json
or two answer files with the questions that they answer
  exgra-med evaluate compare new/answers.jsonl old/answers.jsonl --gt test.json --json comparison.json

Prints the difference A - B of every metric with its 95 % interval, from a paired bootstrap over the questions."""

_EPILOG = """\
An interval that does not contain 0 says that the difference is more than the choice of questions explains. Metrics that
are right or wrong for each question also show how many only A and only B has right, and McNemar's exact two-sided p.
Chance in training is not in these numbers: compare several seeds for that."""

_KINDS = {"strict": STRICT_NAMES, "legacy": LEGACY_NAMES}
_TITLES = {"strict": "strict", "legacy": "published scripts"}
_WIDTH = 20


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    parents: Sequence[argparse.ArgumentParser] = (),
) -> None:
    """Adds `compare`; the parsed options get a `run` that takes them and returns the exit code."""
    compare = subparsers.add_parser(
        "compare",
        parents=list(parents),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        help="two models on the same questions",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    compare.add_argument("first", metavar="A", type=Path, help="scores file (.json) or answer file (.jsonl)")
    compare.add_argument("second", metavar="B", type=Path, help="another one")
    compare.add_argument("--gt", metavar="FILE", type=Path, help="the questions of answer files")
    compare.add_argument(
        "--candidates", metavar="FILE", type=Path, help="for answer files: adds the closest-candidate accuracy"
    )
    compare.add_argument(
        "--allow-duplicate-ids",
        action="store_true",
        help="for answer files: questions with the same id are told apart by their order, as ID, ID#2",
    )
    compare.add_argument(
        "--json", metavar="FILE|-", help="also write the comparison here; - writes it to standard output instead"
    )
    compare.add_argument("--plot", metavar="FILE", type=Path, help="draw the differences into this PNG file")
    compare.add_argument(
        "--seed", metavar="N", type=natural, default=0, help="seed of the bootstrap (default: %(default)s)"
    )
    compare.add_argument(
        "--resamples", metavar="N", type=positive, default=10000, help="bootstrap samples (default: %(default)s)"
    )
    compare.set_defaults(run=_run, usage_error=compare.error)


def format_comparison(differences: Mapping[str, Difference], first: str, second: str) -> str:
    """Formats differences as a table in percent.

    Args:
        differences: as `compare_items` returns them.
        first: the first model's name.
        second: the second model's name.

    Example:
        >>> print(format_comparison({"strict open_recall": Difference(0.5, 0.25, 0.25, 0.1, 0.4, 8)}, "a", "b"))
        A: a
        B: b
        <BLANKLINE>
        strict                   n      A      B   A - B   95 % interval   only A  only B  McNemar p
        open recall              8   50.0   25.0   +25.0   +10.0 ... +40.0
    """
    parts = [f"A: {first}\nB: {second}"]
    for kind, names in _KINDS.items():
        head = f"{_TITLES[kind]:<{_WIDTH}} {'n':>5} {'A':>6} {'B':>6} {'A - B':>7}   95 % interval"
        lines = [f"{head}   only A  only B  McNemar p"]
        lines += [
            _row(name, differences[f"{kind} {metric}"])
            for metric, name in names.items()
            if f"{kind} {metric}" in differences
        ]
        if len(lines) > 1:
            parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _row(name: str, value: Difference) -> str:
    first, second, difference, low, high = (
        # Rounding comes first: "-0.0" would look like a loss.
        round(100 * number, 1) + 0.0
        for number in (value.first, value.second, value.difference, value.low, value.high)
    )
    row = f"{name:<{_WIDTH}} {value.count:>5} {first:>6.1f} {second:>6.1f} {difference:>+7.1f}"
    row += f"   {low:>+5.1f} ... {high:<+6.1f}"
    if value.mcnemar is not None:
        test = value.mcnemar
        p_value = f"{test.p_value:.3f}" if test.p_value >= 0.001 else f"{test.p_value:.0e}"
        row += f" {test.only_first:>6}  {test.only_second:>6}  {p_value:>9}"
    return row.rstrip()


def _run(options: argparse.Namespace) -> int:
    paths = (options.first, options.second)
    answer_files = [path.suffix.lower() == ".jsonl" for path in paths]
    if any(answer_files) and options.gt is None:
        options.usage_error("answer files need --gt, the file with their questions")
    if options.gt is not None and not any(answer_files):
        options.usage_error("--gt is for answer files (.jsonl); scores files hold their questions' scores")
    if not any(answer_files) and (options.candidates is not None or options.allow_duplicate_ids):
        options.usage_error("--candidates and --allow-duplicate-ids are for answer files (.jsonl)")
    questions = None
    if options.gt is not None:
        questions = read_questions(options.gt, (), options.allow_duplicate_ids)
    candidates = None if options.candidates is None else read_candidates(options.candidates)
    first, second = (
        _read_scores(path) if questions is None or not answers else _score_answers(path, questions, candidates, options)
        for path, answers in zip(paths, answer_files, strict=True)
    )
    differences = compare_items(first, second, options.seed, options.resamples)
    content = {
        "format": 1,
        "seed": options.seed,
        "resamples": options.resamples,
        "first": str(options.first),
        "second": str(options.second),
        "metrics": {name: asdict(value) for name, value in differences.items()},
    }
    if options.plot is not None:
        from exgra_adapter.evaluation.compare_plot import plot_differences  # matplotlib takes a second

        plot_differences(differences, str(options.first), str(options.second), options.plot)
    if options.json == "-":
        say(json.dumps(content))
        return 0
    if options.json is not None:
        write_json(Path(options.json), content)
    say(format_comparison(differences, str(options.first), str(options.second)))
    return 0


def _score_answers(
    path: Path, questions: Questions, candidates: list[str] | None, options: argparse.Namespace
) -> dict[Key, ItemValues]:
    """Scores the questions that a file answers: what it lacks must be told apart from what it has wrong."""
    predictions = read_answers(path, options.allow_duplicate_ids)
    if options.allow_duplicate_ids:
        predictions = number_repeated_predictions(predictions)
    answered = {(prediction.id, prediction.turn) for prediction in predictions}
    content = report_scores(questions, predictions, candidates, resamples=1).to_json()
    return {key: item for key, item in read_items(content, str(path)).items() if key in answered}


def _read_scores(path: Path) -> dict[Key, ItemValues]:
    if not path.is_file():
        raise ValueError(f"compare: {path} must be an existing file; got none. Check the name.")
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"compare: {path} must be a scores file (JSON), or an answer file whose name ends in .jsonl; got {error}. "
            "Make it with exgra-med evaluate vqa --json."
        ) from error
    if not isinstance(content, dict):
        raise ValueError(
            f"compare: {path} must be a scores file, a JSON object; got {type(content).__name__}. "
            "Make it with exgra-med evaluate vqa --json."
        )
    return read_items(content, str(path))
