"""The command `exgra-med evaluate`: answers and scores."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from exgra_adapter.atomic import write_json
from exgra_adapter.console import natural, positive, say
from exgra_adapter.data.records import Record, read_records
from exgra_adapter.evaluation.files import Prediction, read_answers, read_candidates, write_answers
from exgra_adapter.evaluation.metrics import Estimate, Scores, score

logger = logging.getLogger(__name__)

_DESCRIPTION = """\
Scores answers to visual questions. Either a model answers them first:
  exgra-med evaluate vqa --model runs/vqa --data test.json --images images --output runs/vqa/test
or an answer file exists already (one JSON object per line with question_id and text):
  exgra-med evaluate vqa --gt test.json --pred answers.jsonl --json scores.json"""

_EPILOG = """\
exact match      all questions: the words of answer and reference are the same
open recall      open questions: share of the reference's distinct words that the answer has
closed accuracy  closed questions: the answer gives the reference's verdict, in whole words
summary          mean of open recall and closed accuracy, as papers report it

Case and punctuation do not count. A question without an answer is wrong. Intervals are 95 % percentile bootstrap."""

_ANSWERS, _SCORES = "answers.jsonl", "scores.json"
_ROWS = {
    "exact_match": "exact match",
    "open_recall": "open recall",
    "closed_accuracy": "closed accuracy",
    "summary": "summary",
    "open_candidates": "closest candidate",
}


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    parents: Sequence[argparse.ArgumentParser] = (),
) -> None:
    """Adds `evaluate vqa`; the parsed options get a `run` that takes them and returns the exit code."""
    form = argparse.RawDescriptionHelpFormatter
    evaluate = subparsers.add_parser(
        "evaluate", allow_abbrev=False, help="answer questions with a model, score answers"
    )
    kinds = evaluate.add_subparsers(title="what to evaluate", required=True, metavar="{vqa}")
    vqa = kinds.add_parser(
        "vqa",
        parents=list(parents),
        allow_abbrev=False,
        formatter_class=form,
        help="visual question answering",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    model = vqa.add_argument_group("let a model answer")
    model.add_argument("--model", metavar="DIR", type=Path, help="model folder (the output of exgra-med train)")
    model.add_argument("--data", metavar="FILE", type=Path, help="JSON file with the questions and reference answers")
    model.add_argument(
        "--images", metavar="DIR", type=Path, help="folder that the image names in the data are relative to"
    )
    model.add_argument(
        "--output", metavar="DIR", type=Path, help="folder for answers.jsonl and scores.json; both are replaced"
    )
    model.add_argument(
        "--batch-size", metavar="N", type=positive, default=16, help="questions at once (default: %(default)s)"
    )
    model.add_argument(
        "--max-new-tokens", metavar="N", type=positive, default=64, help="longest answer (default: %(default)s)"
    )
    model.add_argument(
        "--prompt",
        choices=("llava", "released", "chat_template"),
        help="conversation format (default: the one that the model was trained in)",
    )
    ready = vqa.add_argument_group("score an answer file")
    ready.add_argument("--gt", metavar="FILE", type=Path, help="JSON file with the questions and reference answers")
    ready.add_argument("--pred", metavar="FILE", type=Path, help="answer file")
    both = vqa.add_argument_group("for both")
    both.add_argument(
        "--candidates", metavar="FILE", type=Path, help='JSON {"0": [answers ...]}: adds the closest-candidate accuracy'
    )
    both.add_argument(
        "--json", metavar="FILE|-", help="also write the scores here; - writes them to standard output instead"
    )
    both.add_argument(
        "--seed", metavar="N", type=natural, default=0, help="seed of the bootstrap (default: %(default)s)"
    )
    vqa.set_defaults(run=_run, usage_error=vqa.error)


def format_scores(scores: Scores) -> str:
    """Formats scores as a table in percent.

    Example:
        >>> from exgra_adapter.data.records import Record, Turn
        >>> record = Record("7", "a.png", (Turn("Is it a liver?", "yes"),), "CLOSED")
        >>> print(format_scores(score([record], [Prediction("7", 0, "", "", "Yes.")])))
        1 questions (0 open, 1 closed), 0 without an answer
        <BLANKLINE>
                           score   95 % interval
        exact match        100.0   100.0 - 100.0
        closed accuracy    100.0   100.0 - 100.0
    """
    opened = sum(item.answer_type == "OPEN" for item in scores.items)
    lines = [
        f"{len(scores.items)} questions ({opened} open, {len(scores.items) - opened} closed), "
        f"{scores.failed} without an answer",
        "",
        f"{'':<18} {'score':>5}   95 % interval",
    ]
    for key, name in _ROWS.items():
        estimate: Estimate | None = getattr(scores, key)
        if estimate is not None:
            value, low, high = (100 * number for number in (estimate.value, estimate.low, estimate.high))
            lines.append(f"{name:<18} {value:>5.1f}   {low:>5.1f} - {high:.1f}")
    return "\n".join(lines)


def _run(options: argparse.Namespace) -> int:
    answering = {name: getattr(options, name) for name in ("model", "data", "images", "output")}
    scoring = {name: getattr(options, name) for name in ("gt", "pred")}
    if any(answering.values()) == any(scoring.values()):
        options.usage_error("give either --model, --data, --images and --output, or --gt and --pred")
    chosen = answering if any(answering.values()) else scoring
    missing = [f"--{name}" for name, value in chosen.items() if value is None]
    if missing:
        options.usage_error(f"the following options are required too: {', '.join(missing)}")
    candidates = None if options.candidates is None else read_candidates(options.candidates)
    if chosen is answering:
        records = read_records(options.data)
        predictions = _answer(options, records)
    else:
        records, predictions = read_records(options.gt), read_answers(options.pred)
    scores = score(records, predictions, candidates, options.seed)
    content = {"format": 1, "seed": options.seed, **asdict(scores)}
    if chosen is answering:
        write_json(options.output / _SCORES, content)
    if options.json == "-":
        say(json.dumps(content, ensure_ascii=False))
        return 0
    if options.json is not None:
        write_json(Path(options.json), content)
    say(format_scores(scores))
    return 0


def _answer(options: argparse.Namespace, records: list[Record]) -> list[Prediction]:
    # Importing transformers takes seconds: scoring an answer file does without.
    from exgra_adapter.evaluation.generate import generate_answers
    from exgra_adapter.models import load_model

    if not options.images.is_dir():
        raise ValueError(f"evaluate: images must be an existing folder; got {options.images}. Check the path.")
    options.output.mkdir(parents=True, exist_ok=True)
    model, processor = load_model(options.model)
    predictions = generate_answers(
        model,
        processor,
        records,
        options.images,
        options.batch_size,
        options.max_new_tokens,
        prompt=options.prompt or _prompt_of(options.model),
    )
    write_answers(options.output / _ANSWERS, predictions)
    failures = [prediction for prediction in predictions if prediction.error is not None]
    if failures:
        logger.warning("%d questions have no answer; the first: %s", len(failures), failures[0].error)
    return predictions


def _prompt_of(model: Path) -> str:
    """The format that a model was trained in, as its settings say."""
    try:
        settings = json.loads((model / "settings.json").read_text(encoding="utf-8"))
        return str(settings.get("prompt", "llava"))
    except (OSError, ValueError, AttributeError):
        return "llava"  # a model from elsewhere
