"""Asks the judge, through a journal that survives a kill, and collects what it said."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from exgra_adapter.complete_file import complete_file
from exgra_adapter.endpoint import EndpointSettings, Item, Journal, JournalIndex, run_batch
from exgra_adapter.evaluation.chat_files import Candidate, ChatQuestion
from exgra_adapter.evaluation.judge import (
    VERDICT_SCHEMA,
    Comparison,
    Presentation,
    Verdict,
    compare,
    parse_verdict,
    presentations,
)
from exgra_adapter.evaluation.judge_report import JudgeUse, item_line
from exgra_adapter.evaluation.judge_table import ScoreTable, tabulate

_CHARACTERS_PER_TOKEN = 4
_OVERHEAD_TOKENS = 120  # the schema, and what chat templates put around messages
_REPLY_TOKENS = 150  # two explanations of one or two sentences


@dataclass(frozen=True)
class Estimation:
    """What judging will take; tokens are estimated from numbers of characters."""

    requests: int
    done: int
    input_tokens: int
    output_tokens: int
    cost: float | None


def ask_judge(
    settings: EndpointSettings,
    questions: Collection[ChatQuestion],
    candidates: Collection[Candidate],
    instructions: str,
    journal: Path,
    *,
    items: Path | None = None,
    resume: bool = False,
    retry_failed: bool = False,
    **options: Any,
) -> tuple[ScoreTable, JudgeUse]:
    """Has every answer judged in both orders. Texts are in memory one by one, scores with about 34 bytes each.

    Args:
        settings: The judge.
        questions: The questions.
        candidates: The answers.
        instructions: The system message.
        journal: The file of replies. A killed run loses the requests in flight and nothing else. Further candidates can
            be judged into it; changed answers are judged anew.
        items: A file for one JSON line per candidate and question, see `item_line`; it appears when it is complete.
        resume: Continue an existing journal.
        retry_failed: Ask again where an earlier run got no usable reply.
        options: Further arguments of `exgra_adapter.endpoint.run_batch`.

    Returns:
        The scores, one row per candidate and question, in that order, and what it took.

    Raises:
        ValueError: The journal exists already and `resume` is False, or comes from another judge or other instructions;
            a file of questions or answers changes meanwhile; or the endpoint refuses every request.
        OSError: Another process writes the journal.
    """
    run = {"task": "chat judge", **settings.describe(), "instructions": digest(instructions)}
    with Journal(journal, run, resume) as writer:
        run_batch(
            settings,
            (
                Item(item.key(instructions), item.messages(instructions), VERDICT_SCHEMA, "verdict")
                for item in presentations(questions, candidates)
            ),
            writer,
            retry_failed=retry_failed,
            total=sum(1 for _ in presentations(questions, candidates)),
            description="judging",
            **options,
        )
    del writer  # its index of earlier runs takes memory
    with closing(JournalIndex(journal)) as index:
        comparisons = compare(questions, candidates, lambda item: _verdict_on(item, index, instructions))
        with nullcontext() if items is None else complete_file(items) as file:
            table = tabulate(_written(comparisons, file))
    return table, JudgeUse(
        requests=2 * int(table.answered.sum()),
        failed=table.reasons.total(),
        input_tokens=index.input_tokens,
        output_tokens=index.output_tokens,
        cost=settings.cost(index.input_tokens, index.output_tokens),
        errors=dict(table.reasons),
    )


def _verdict_on(item: Presentation, index: JournalIndex, instructions: str) -> Verdict | str:
    entry = index.entry(item.key(instructions))
    if entry is not None and entry["status"] == "ok":
        return parse_verdict(entry["content"], item.order)
    return "no reply" if entry is None else str(entry.get("reason", "no reply"))


def _written(comparisons: Iterable[Comparison], file: IO[str] | None) -> Iterator[Comparison]:
    """Passes comparisons on, and writes a line of each."""
    for item in comparisons:
        if file is not None:
            file.write(json.dumps(item_line(item), ensure_ascii=False) + "\n")
        yield item


def estimate_use(
    questions: Collection[ChatQuestion],
    candidates: Collection[Candidate],
    instructions: str,
    settings: EndpointSettings,
    journal: Path,
    retry_failed: bool = False,
) -> Estimation:
    """Estimates, without asking, what is left to do for `ask_judge`; the arguments are the same."""
    index = JournalIndex(journal) if journal.is_file() and journal.stat().st_size else None
    requests = done = characters = 0
    for item in presentations(questions, candidates):
        requests += 1
        status = None if index is None else index.status(item.key(instructions))
        if status == "ok" or (status == "failed" and not retry_failed):
            done += 1
        else:
            characters += sum(len(message["content"]) for message in item.messages(instructions))
    left = requests - done
    tokens = characters // _CHARACTERS_PER_TOKEN + left * _OVERHEAD_TOKENS
    return Estimation(requests, done, tokens, left * _REPLY_TOKENS, settings.cost(tokens, left * _REPLY_TOKENS))


def digest(text: str) -> str:
    """A short name of a text's content."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=8).hexdigest()
