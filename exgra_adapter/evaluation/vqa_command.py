"""The command `exgra-med evaluate vqa`: answers to visual questions, and their scores."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from exgra_adapter.atomic import write_json, write_text
from exgra_adapter.console import main_process_complains_first, natural, say
from exgra_adapter.data.records import Record
from exgra_adapter.evaluation.files import Prediction, read_answers, read_candidates
from exgra_adapter.evaluation.options import add_generation_options, refuse_generation_options
from exgra_adapter.evaluation.questions import number_repeated_predictions, read_questions
from exgra_adapter.evaluation.tables import format_report, item_table, latex_row
from exgra_adapter.evaluation.vqa_report import report_scores

logger = logging.getLogger(__name__)

_DESCRIPTION = """\
Scores answers to visual questions. Either a model answers them first:
  exgra-med evaluate vqa --model runs/vqa --data test.json --images images --output runs/vqa/test
or an answer file exists already (one JSON object per line with question_id and text):
  exgra-med evaluate vqa --gt test.json --pred answers.jsonl --json scores.json --csv items.csv"""

_EPILOG = """\
strict scores: a question without an answer is wrong, case and punctuation do not count
  exact match        all questions: the words of answer and reference are the same
  open recall        open questions: share of the reference's distinct words that the answer has
  closed accuracy    closed questions: the answer gives the reference's verdict, in whole words
  summary            mean of open recall and closed accuracy, as papers report it
  closest candidate  open questions, with --candidates: no other candidate is as close to the answer
  macro-F1           mean over the possible answers of the F1 of each, open and closed questions apart

published scripts: the numbers that they print. "no" is found in "normal", repeated words raise recall, the PathVQA
variant drops wrong yes/no answers from its denominator. Exact match to BLEU are about the open questions alone.

Intervals are 95 % percentile bootstrap. Two answer files are compared by exgra-med evaluate compare."""

_ANSWERS, _SCORES = "answers.jsonl", "scores.json"


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    parents: Sequence[argparse.ArgumentParser] = (),
) -> None:
    """Adds `vqa`; the parsed options get a `run` that takes them and returns the exit code."""
    vqa = subparsers.add_parser(
        "vqa",
        parents=list(parents),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        help="visual question answering",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    model = vqa.add_argument_group("let a model answer")
    model.add_argument("--model", metavar="DIR", type=Path, help="model folder (the output of exgra-med train)")
    model.add_argument("--data", metavar="FILE", type=Path, help="JSON file with the questions and reference answers")
    model.add_argument(
        "--images", metavar="DIR", type=Path, help="folder or tar that the image names in the data are relative to"
    )
    model.add_argument(
        "--output", metavar="DIR", type=Path, help="folder for answers.jsonl and scores.json; both are replaced"
    )
    add_generation_options(model, max_new_tokens=64)
    ready = vqa.add_argument_group("score an answer file")
    ready.add_argument("--gt", metavar="FILE", type=Path, help="JSON file with the questions and reference answers")
    ready.add_argument("--pred", metavar="FILE", type=Path, help="answer file")
    both = vqa.add_argument_group("for both")
    both.add_argument(
        "--candidates", metavar="FILE", type=Path, help='JSON {"0": [answers ...]}: adds the closest-candidate accuracy'
    )
    both.add_argument(
        "--metrics",
        choices=("legacy", "strict", "both"),
        default="both",
        help="legacy: those of the published scripts (default: %(default)s)",
    )
    both.add_argument(
        "--by",
        metavar="KEY",
        action="append",
        help="key of the questions' file to break the scores down by, may be repeated (default: question_type, "
        "phrase_type, content_type, modality, image_organ and location, those that the file has)",
    )
    both.add_argument(
        "--json", metavar="FILE|-", help="also write the scores here; - writes them to standard output instead"
    )
    both.add_argument("--csv", metavar="FILE", type=Path, help="also write the scores of each question here")
    both.add_argument(
        "--latex", metavar="FILE", nargs="?", const="-", help="also write a LaTeX row, here or below the tables"
    )
    both.add_argument("--name", help="first cell of the LaTeX row (default: the name of the model or answer file)")
    both.add_argument(
        "--allow-duplicate-ids",
        action="store_true",
        help="questions with the same id are told apart by their order, as ID, ID#2; for published PathVQA files",
    )
    both.add_argument(
        "--seed", metavar="N", type=natural, default=0, help="seed of the bootstrap (default: %(default)s)"
    )
    vqa.set_defaults(run=_run, usage_error=vqa.error, default_of=vqa.get_default)


def _run(options: argparse.Namespace) -> int:
    answering = {name: getattr(options, name) for name in ("model", "data", "images", "output")}
    scoring = {name: getattr(options, name) for name in ("gt", "pred")}
    if any(answering.values()) == any(scoring.values()):
        options.usage_error("give either --model, --data, --images and --output, or --gt and --pred")
    chosen = answering if any(answering.values()) else scoring
    missing = [f"--{name}" for name, value in chosen.items() if value is None]
    if missing:
        options.usage_error(f"the following options are required too: {', '.join(missing)}")
    if chosen is scoring:
        refuse_generation_options(options, options.default_of)
    candidates = None if options.candidates is None else read_candidates(options.candidates)
    questions = read_questions(options.data or options.gt, options.by, options.allow_duplicate_ids)
    if chosen is answering:
        with main_process_complains_first():
            answered = _answer(options, questions.records)
        if answered is None:
            return 0
        predictions = answered
    else:
        predictions = read_answers(options.pred, options.allow_duplicate_ids)
        predictions = number_repeated_predictions(predictions) if options.allow_duplicate_ids else predictions
    report = report_scores(questions, predictions, candidates, options.seed, shown=options.metrics)
    content = report.to_json()
    row = latex_row(report, options.name or (options.model.name if options.model else options.pred.stem))
    if chosen is answering:
        write_json(options.output / _SCORES, content)
    if options.csv is not None:
        write_text(options.csv, item_table(report, questions.groups))
    if options.latex not in (None, "-"):
        write_text(Path(options.latex), row + "\n")
    if options.json == "-":
        say(json.dumps(content))
        return 0
    if options.json is not None:
        write_json(Path(options.json), content)
    say(format_report(report))
    if options.latex == "-":
        say(f"\n{row}")
    return 0


def _answer(options: argparse.Namespace, records: Sequence[Record]) -> list[Prediction] | None:
    """Lets the model answer; None in the processes of torchrun that leave the rest to the first one."""
    # Importing torch takes seconds: scoring an answer file does without.
    from exgra_adapter.distributed import is_main_process
    from exgra_adapter.evaluation.answering import answer_questions
    from exgra_adapter.evaluation.sharing import evaluation_processes

    if not options.images.exists():
        raise ValueError(f"evaluate: images must be an existing folder or tar; got {options.images}. Check the path.")
    options.output.mkdir(parents=True, exist_ok=True)
    with evaluation_processes():
        predictions = answer_questions(
            options.model,
            records,
            options.images,
            options.output / _ANSWERS,
            options.batch_size,
            options.max_new_tokens,
            options.prompt,
            options.resume,
            on_error=options.on_error,
            precision=options.precision,
        )
        if not is_main_process():
            return None
    failures = [prediction for prediction in predictions if prediction.error is not None]
    if failures:
        logger.warning("%d questions have no answer; the first: %s", len(failures), failures[0].error)
    return predictions
