"""The command `exgra-med evaluate chat`: open answers, graded by a language model."""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from exgra_adapter import strict_json
from exgra_adapter.atomic import write_json, write_text
from exgra_adapter.console import complain, natural, positive, say
from exgra_adapter.endpoint import EndpointSettings, add_endpoint_options, settings_from_options
from exgra_adapter.evaluation.chat_files import (
    Candidate,
    QuestionFile,
    StandIn,
    read_candidate,
    read_questions,
    to_records,
)
from exgra_adapter.evaluation.judge import read_instructions
from exgra_adapter.evaluation.judge_report import JudgeUse, format_report, format_scores, report_json
from exgra_adapter.evaluation.judge_run import ask_judge, digest, estimate_use
from exgra_adapter.evaluation.judge_scores import score_chat
from exgra_adapter.evaluation.judge_table import ScoreTable
from exgra_adapter.evaluation.options import add_answer_options

logger = logging.getLogger(__name__)

JOURNAL, ITEMS, SCORES, REPORT = "verdicts.jsonl", "items.jsonl", "scores.json", "report.md"

_DESCRIPTION = """\
Has a language model, the judge, grade answers to open questions about images against reference answers. The judge
is any OpenAI-compatible endpoint; it sees the image's caption, the question and both answers, in both orders.
  exgra-med evaluate chat --data qa50.jsonl --pred ours=ours.jsonl --pred theirs=theirs.jsonl --output runs/chat \\
      --endpoint http://localhost:8000/v1 --judge my-judge --dry-run
  exgra-med evaluate chat --data qa50.jsonl --model runs/stage2 --images images --output runs/chat --judge gpt-4o"""

_EPILOG = """\
Written to the output folder: report.md with relative_scores.png and order_agreement.png, scores.json, items.jsonl
(a line per candidate and question), verdicts.jsonl (the journal), and for each --model answers_NAME.jsonl
with answers_NAME.settings.json.

Relative score: the candidate's mean score in percent of the reference's, over all questions, by type and by domain,
with 95 % intervals (bootstrap over images). Failures are left out of it, counted, and also shown as scores of 0.
A run that was stopped goes on with --resume; it asks only for what is missing."""


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    parents: Sequence[argparse.ArgumentParser] = (),
) -> None:
    """Adds `chat`; the parsed options get a `run` that takes them and returns the exit code."""
    parser = subparsers.add_parser(
        "chat",
        parents=list(parents),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # The endpoint's own --model and --seed give way: here --model is what is judged, and --judge the endpoint's.
        conflict_handler="resolve",
        help="open questions, graded by a language model",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    data = parser.add_argument_group("questions and results")
    data.add_argument("--data", metavar="FILE", type=Path, required=True, help="questions, JSON lines as LLaVA-Med's")
    data.add_argument("--captions", metavar="FILE", type=Path, help="captions by pair_id for questions without one")
    data.add_argument("--output", metavar="DIR", type=Path, required=True, help="folder for all results")
    data.add_argument("--resume", action="store_true", help="go on with what the output folder holds")
    data.add_argument("--retry-failed", action="store_true", help="with --resume: ask again where the judge failed")
    data.add_argument("--dry-run", action="store_true", help="say what judging would cost; ask nothing, write nothing")
    answers = parser.add_argument_group("candidates: one or more, of either kind")
    answers.add_argument(
        "--pred", metavar="[NAME=]FILE", action="append", default=[], help="answer file; NAME is shown in reports"
    )
    add_endpoint_options(parser)
    answers.add_argument(
        "--model",
        metavar="[NAME=]DIR",
        action="append",
        default=[],
        dest="models",
        help="model folder; the model answers the questions first",
    )
    answers.add_argument("--images", metavar="DIR", type=Path, help="folder of the images, for --model")
    answers.add_argument(
        "--batch-size", metavar="N", type=positive, default=16, help="questions at once (default: %(default)s)"
    )
    add_answer_options(answers, max_new_tokens=512)
    judge = parser.add_argument_group("judge")
    judge.add_argument("--judge", metavar="NAME", dest="model", help="name of the judging model at the endpoint")
    judge.add_argument(
        "--instructions", metavar="FILE", type=Path, help="text file with other instructions for the judge"
    )
    judge.add_argument(
        "--seed",
        metavar="N",
        type=natural,
        default=0,
        help="seed of the bootstrap and of waiting times (default: %(default)s)",
    )
    parser.set_defaults(run=_run, usage_error=parser.error)


def _run(options: argparse.Namespace) -> int:
    files = _named(options.pred, "--pred", options)
    models = _named(options.models, "--model", options)
    if not files and not models:
        options.usage_error("give at least one --pred or --model")
    if len({*files, *models}) < len(options.pred) + len(options.models):
        options.usage_error("candidates must have different names; write NAME=FILE")
    if len({_answers_name(name) for name in models}) < len(models):
        options.usage_error("names of --model must differ in letters or digits, for they name files; write NAME=DIR")
    if options.retry_failed and not options.resume:
        options.usage_error("--retry-failed needs --resume")
    if models and options.images is None and not options.dry_run:
        options.usage_error("--model needs --images")
    questions = read_questions(options.data, options.captions)
    instructions = read_instructions(options.instructions)
    candidates = [read_candidate(path, name, questions) for name, path in files.items()]
    if options.dry_run:
        return _estimate(options, questions, candidates + [StandIn(name) for name in models], instructions)
    settings = settings_from_options(options)
    if not options.resume and (options.output / JOURNAL).exists():
        # Before a model answers for an hour.
        raise ValueError(
            f"evaluate chat: output must not hold an earlier run; got {options.output} with {JOURNAL}. Continue it "
            "with --resume, or choose another folder."
        )
    if models:
        from exgra_adapter.distributed import is_main_process
        from exgra_adapter.evaluation.sharing import evaluation_processes

        with evaluation_processes():
            candidates += _answer(options, questions, models)
            answering_only = not is_main_process()
        if answering_only:
            return 0  # one process judges for all
    table, use = ask_judge(
        settings,
        questions,
        candidates,
        instructions,
        options.output / JOURNAL,
        items=options.output / ITEMS,
        resume=options.resume,
        retry_failed=options.retry_failed,
    )
    _write(options, settings, instructions, files | models, table, use)
    if use.failed:
        complain(
            f"{use.failed} of {use.requests} requests got no usable reply; to ask again, add --resume --retry-failed."
        )
    return 0 if table.judged.any() else 1


def _write(
    options: argparse.Namespace,
    settings: EndpointSettings,
    instructions: str,
    sources: dict[str, Path],
    table: ScoreTable,
    use: JudgeUse,
) -> None:
    # matplotlib takes a second: errors in the options should not wait for it.
    from exgra_adapter.evaluation.judge_plots import plot_chat

    scores = score_chat(table, options.seed)
    described: dict[str, Any] = {"questions": str(options.data)}
    described |= {f"candidate {name}": str(path) for name, path in sources.items()}
    described |= {f"judge's {name.replace('_', ' ')}": value for name, value in settings.describe().items()}
    described |= {
        "instructions": f"{options.instructions or 'built in'} ({digest(instructions)})",
        "seed of the bootstrap": options.seed,
    }
    options.output.mkdir(parents=True, exist_ok=True)
    write_json(options.output / SCORES, report_json(scores, described, use))
    pictures = plot_chat(scores, table, options.output)
    write_text(options.output / REPORT, format_report(scores, described, use, pictures))
    say(format_scores(scores))
    cost = "" if use.cost is None else f", cost {use.cost:.2f}"
    say(f"{use.requests} requests, {use.input_tokens} + {use.output_tokens} tokens{cost}")
    say(f"Report: {options.output / REPORT}")


def _estimate(
    options: argparse.Namespace, questions: QuestionFile, candidates: list[Candidate], instructions: str
) -> int:
    # An estimate needs prices only, no endpoint.
    settings = EndpointSettings(
        "http://localhost/v1", "none", price_input=options.price_input, price_output=options.price_output
    )
    found = estimate_use(questions, candidates, instructions, settings, options.output / JOURNAL, options.retry_failed)
    say(
        f"{len(questions)} questions, {len(candidates)} candidate(s): {found.requests} requests, {found.done} of them "
        "done"
    )
    say(f"about {found.input_tokens} input and {found.output_tokens} output tokens to come, without repeated requests")
    if options.models:
        say("answers of models are taken to be as long as the references")
    cost = "not known; give --price-input and --price-output" if found.cost is None else f"about {found.cost:.2f}"
    say(f"cost: {cost}")
    return 0


def _answer(options: argparse.Namespace, questions: QuestionFile, models: dict[str, Path]) -> list[Candidate]:
    """Lets models answer; finished answers of an earlier run are kept, so that their verdicts stay valid."""
    # Importing torch takes seconds: judging answer files does without.
    from exgra_adapter.distributed import on_main_process
    from exgra_adapter.evaluation.answering import answer_questions

    if not options.images.exists():
        raise ValueError(f"evaluate chat: images must be an existing folder; got {options.images}. Check the path.")
    candidates = []
    for name, folder in models.items():
        path: Path = options.output / _answers_name(name)
        taken_up = options.resume and path.exists()
        on_main_process(partial(_record_settings, path, folder, options, taken_up))
        if taken_up:
            candidates.append(read_candidate(path, name, questions))
            continue
        predictions = answer_questions(
            folder,
            to_records(questions),
            options.images,
            path,
            options.batch_size,
            options.max_new_tokens,
            options.prompt,
            options.resume,
            precision=options.precision,
        )
        failures = [prediction for prediction in predictions if prediction.error is not None]
        if failures:
            logger.warning("%s: %d questions have no answer; the first: %s", name, len(failures), failures[0].error)
        candidates.append(read_candidate(path, name, questions))
    return candidates


def _answers_name(candidate: str) -> str:
    safe_name = re.sub(r"[^\w.-]", "_", candidate)
    return f"answers_{safe_name}.jsonl"


def _record_settings(answers: Path, folder: Path, options: argparse.Namespace, taken_up: bool) -> None:
    """Writes beside answers how they are made; refuses to take up answers that were made in another way.

    The model itself may be gone by then: its folder stands for it.
    """
    path = answers.with_suffix(".settings.json")
    settings = {
        "model": str(folder.resolve()),
        "prompt": options.prompt,
        "precision": options.precision,
        "max_new_tokens": options.max_new_tokens,
    }
    if not taken_up:
        write_json(path, settings)
        return
    earlier = strict_json.decode(path.read_text(encoding="utf-8")) if path.is_file() else settings
    changed = [name for name, value in settings.items() if earlier.get(name) != value]
    if changed:
        name = changed[0]
        raise ValueError(
            f"evaluate chat: {name} must be that of the answers in {answers} ({earlier.get(name)}) when a run is "
            f"continued; got {settings[name]}. Give the candidate another name, as NAME=DIR, or remove that file."
        )


def _named(values: Sequence[str], option: str, options: argparse.Namespace) -> dict[str, Path]:
    """Splits NAME=PATH; without a name the path's own is taken."""
    named: dict[str, Path] = {}
    for value in values:
        name, equals, path = value.partition("=")
        if not equals or Path(value).exists():
            name, path = "", value
        if not path or (equals and not name and not Path(value).exists()):
            options.usage_error(f"{option} must be NAME=PATH or PATH; got {value!r}")
        named[name or (Path(path).stem if option == "--pred" else Path(path).resolve().name)] = Path(path)
    return named
