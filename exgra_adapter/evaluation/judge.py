"""What a judge is asked, and what its replies mean.

Vocabulary: a *comparison* is one question with the answer of one candidate beside the reference answer. Its two
*presentations* show the same answers in both orders, because language models favour a place; the score of an answer is
the mean of both.

Source of the procedure: L. Zheng et al., Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena, NeurIPS 2023, section
3.4 (both orders against position bias).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from exgra_adapter.evaluation.chat_files import Candidate, ChatQuestion

Order = Literal["reference_first", "candidate_first"]
ORDERS: tuple[Order, Order] = ("reference_first", "candidate_first")

LOWEST, HIGHEST = 1, 10
PROMPT_FILE = Path(__file__).parent / "prompts" / "judge.txt"
"""The instructions that a judge gets unless a run names its own file."""

_GRADE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "explanation": {"type": "string"},
        "score": {"type": "integer", "minimum": LOWEST, "maximum": HIGHEST},
    },
    "required": ["explanation", "score"],
    "additionalProperties": False,
}
VERDICT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"answer_1": _GRADE, "answer_2": _GRADE},
    "required": ["answer_1", "answer_2"],
    "additionalProperties": False,
}
"""JSON schema of a judge's reply; explanations come first, so that scores follow from them."""


@dataclass(frozen=True)
class Presentation:
    """One request to the judge.

    Attributes:
        question: What is asked.
        candidate: The name of the candidate.
        answer: The candidate's answer.
        order: Which answer comes first.
    """

    question: ChatQuestion
    candidate: str
    answer: str
    order: Order

    def messages(self, instructions: str) -> list[dict[str, str]]:
        """Returns the chat messages.

        The answers travel inside a JSON object: whatever they contain, they cannot pass for something else.
        """
        answers = [self.question.reference, self.answer]
        if self.order == "candidate_first":
            answers.reverse()
        context: dict[str, Any] = {"caption": self.question.caption}
        if self.question.mentions:
            context["mentions"] = list(self.question.mentions)
        content = {
            "context": context,
            "question": self.question.text,
            "answer_1": answers[0],
            "answer_2": answers[1],
        }
        return [
            {"role": "system", "content": instructions},
            {"role": "user", "content": json.dumps(content, ensure_ascii=False, indent=1)},
        ]

    def key(self, instructions: str) -> str:
        """Names the request by its content, so that a changed answer, question or prompt is never taken as judged."""
        content = json.dumps([self.messages(instructions), VERDICT_SCHEMA])
        digest = hashlib.blake2b(content.encode("utf-8"), digest_size=8).hexdigest()
        return f"{self.candidate}/{self.question.id}/{self.order}/{digest}"


@dataclass(frozen=True)
class Verdict:
    """What the judge said to one presentation.

    Attributes:
        reference: The score of the reference answer.
        candidate: The score of the candidate's answer.
        reference_explanation: Why.
        candidate_explanation: Why.
    """

    reference: int
    candidate: int
    reference_explanation: str = ""
    candidate_explanation: str = ""


@dataclass(frozen=True)
class Comparison:
    """One question of one candidate, with the verdicts that there are.

    Attributes:
        question: What was asked.
        candidate: The name of the candidate.
        answer: The candidate's answer, None where it gave none.
        verdicts: By order; two where everything went well.
        errors: By order: why there is no verdict.
    """

    question: ChatQuestion
    candidate: str
    answer: str | None
    verdicts: Mapping[Order, Verdict]
    errors: Mapping[Order, str]

    @property
    def judged(self) -> bool:
        """Whether both orders have a verdict; one alone would carry the bias of its order."""
        return len(self.verdicts) == len(ORDERS)

    @property
    def reference_score(self) -> float:
        """The mean score of the reference over both orders."""
        return sum(verdict.reference for verdict in self.verdicts.values()) / len(self.verdicts)

    @property
    def candidate_score(self) -> float:
        """The mean score of the candidate over both orders."""
        return sum(verdict.candidate for verdict in self.verdicts.values()) / len(self.verdicts)


def read_instructions(path: Path | None = None) -> str:
    """Reads the instructions for the judge.

    Args:
        path: A text file; None takes the one of this package.

    Raises:
        ValueError: The file is missing, not UTF-8 or empty.
    """
    path = PROMPT_FILE if path is None else path
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"read_instructions: {path} must be a readable text file in UTF-8; got {error}. Check the name."
        ) from error
    if not text:
        raise ValueError(f"read_instructions: {path} must say how to judge; got an empty file. Write the instructions.")
    return text


def presentations(questions: Collection[ChatQuestion], candidates: Collection[Candidate]) -> Iterator[Presentation]:
    """Yields what the judge is asked: every answer beside its reference, in both orders.

    A question that a candidate did not answer is not asked; it counts as failed without costing anything.
    """
    for candidate in candidates:
        for question in questions:
            answer = candidate.answer_to(question)
            if answer is not None:
                for order in ORDERS:
                    yield Presentation(question, candidate.name, answer, order)


def parse_verdict(content: Any, order: Order) -> Verdict:
    """Reads a reply that follows `VERDICT_SCHEMA`.

    Args:
        content: The decoded reply.
        order: Which answer came first.

    Raises:
        ValueError: The reply does not follow the schema.

    Example:
        >>> reply = {"answer_1": {"explanation": "vague", "score": 4}, "answer_2": {"explanation": "right", "score": 9}}
        >>> parse_verdict(reply, "candidate_first").candidate
        4
    """
    grades = []
    for name in ("answer_1", "answer_2"):
        grade = content.get(name) if isinstance(content, Mapping) else None
        grade = grade if isinstance(grade, Mapping) else {}
        score = grade.get("score")
        if isinstance(score, float) and score.is_integer():
            score = int(score)  # 7.0 is a whole number in JSON
        if not isinstance(score, int) or isinstance(score, bool) or not LOWEST <= score <= HIGHEST:
            raise ValueError(
                f"parse_verdict: {name} must have a whole score from {LOWEST} to {HIGHEST}; got {score!r}. "
                "Ask the judge again."
            )
        grades.append((score, str(grade.get("explanation", ""))))
    first, second = grades
    reference, candidate = (first, second) if order == "reference_first" else (second, first)
    return Verdict(reference[0], candidate[0], reference[1], candidate[1])


def compare(
    questions: Collection[ChatQuestion],
    candidates: Collection[Candidate],
    verdict_on: Callable[[Presentation], Verdict | str],
) -> Iterator[Comparison]:
    """Puts the judge's verdicts beside the questions, one comparison at a time.

    Args:
        questions: All questions.
        candidates: All candidates.
        verdict_on: Gives the verdict on a presentation, or says why there is none.

    Yields:
        One comparison per candidate and question, in that order.
    """
    for candidate in candidates:
        for question in questions:
            answer = candidate.answer_to(question)
            verdicts: dict[Order, Verdict] = {}
            errors: dict[Order, str] = {}
            if answer is not None:
                for order in ORDERS:
                    found = verdict_on(Presentation(question, candidate.name, answer, order))
                    if isinstance(found, Verdict):
                        verdicts[order] = found
                    else:
                        errors[order] = found
            yield Comparison(question, candidate.name, answer, verdicts, errors)
