"""Asks the judge, through a journal that survives a kill, and collects what it said."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exgra_adapter.endpoint import EndpointSettings, Item, Journal, JournalIndex, run_batch
from exgra_adapter.evaluation.chat_files import Candidate, ChatQuestion
from exgra_adapter.evaluation.judge import VERDICT_SCHEMA, Comparison, Order, compare, presentations
from exgra_adapter.evaluation.judge_report import JudgeUse

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
    questions: Sequence[ChatQuestion],
    candidates: Sequence[Candidate],
    instructions: str,
    journal: Path,
    *,
    resume: bool = False,
    retry_failed: bool = False,
    **options: Any,
) -> tuple[list[Comparison], JudgeUse]:
    """Has every answer judged in both orders.

    Args:
        settings: The judge.
        questions: The questions.
        candidates: The answers.
        instructions: The system message.
        journal: The file of replies. A killed run loses the requests in flight and nothing else. Further candidates can
            be judged into it; changed answers are judged anew.
        resume: Continue an existing journal.
        retry_failed: Ask again where an earlier run got no usable reply.
        options: Further arguments of `exgra_adapter.endpoint.run_batch`.

    Returns:
        One comparison per candidate and question, in that order, and what it took.

    Raises:
        ValueError: The journal exists already and `resume` is False, or comes from another judge or other instructions;
            or the endpoint refuses every request.
        OSError: Another process writes the journal.
    """
    asked = list(presentations(questions, candidates))
    items = (Item(item.key(instructions), item.messages(instructions), VERDICT_SCHEMA, "verdict") for item in asked)
    run = {"task": "chat judge", **settings.describe(), "instructions": digest(instructions)}
    with Journal(journal, run, resume) as writer:
        run_batch(
            settings, items, writer, retry_failed=retry_failed, total=len(asked), description="judging", **options
        )
    replies: dict[tuple[str, str, Order], Any] = {}
    failures: dict[tuple[str, str, Order], str] = {}
    index = JournalIndex(journal)
    try:
        for item in asked:
            entry = index.entry(item.key(instructions))
            place = (item.candidate, item.question.id, item.order)
            if entry is not None and entry["status"] == "ok":
                replies[place] = entry["content"]
            else:
                failures[place] = "no reply" if entry is None else str(entry.get("reason", "no reply"))
    finally:
        index.close()
    use = JudgeUse(
        requests=len(asked),
        failed=len(failures),
        input_tokens=index.input_tokens,
        output_tokens=index.output_tokens,
        cost=settings.cost(index.input_tokens, index.output_tokens),
        errors=dict(Counter(failures.values())),
    )
    return compare(questions, candidates, replies, failures), use


def estimate_use(
    questions: Sequence[ChatQuestion],
    candidates: Sequence[Candidate],
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


def stand_in(name: str, questions: Sequence[ChatQuestion]) -> Candidate:
    """Answers as long as the references, for an estimate before a model has answered."""
    return Candidate(name, {question.id: question.reference for question in questions})


def digest(text: str) -> str:
    """A short name of a text's content."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=8).hexdigest()
