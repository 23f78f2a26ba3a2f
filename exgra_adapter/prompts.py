r"""The one place that says how a question is put to the model and where an answer ends.

The format is that of LLaVA-1.5: `USER: <image>\nquestion ASSISTANT: answer</s>USER: next question ASSISTANT: ...`.
Training and generation both build their text here, so a model is asked exactly as it was taught.
"""

from __future__ import annotations

from collections.abc import Sequence

IMAGE_TAG = "<image>"
"""Stands for the image in a prompt; the processor replaces it by one token per image patch."""


def question_prompt(question: str, first: bool = True) -> str:
    r"""Formats one question up to the point where the model starts to answer.

    Args:
        question: The question without any image tag.
        first: Whether this opens the conversation; only then the image stands in front of the question.

    Returns:
        The prompt. The answer follows with `answer_continuation`.

    Example:
        >>> question_prompt("Is there a lesion?")
        'USER: <image>\nIs there a lesion? ASSISTANT:'
        >>> question_prompt("On which side?", first=False)
        'USER: On which side? ASSISTANT:'
    """
    image = f"{IMAGE_TAG}\n" if first else ""
    return f"USER: {image}{question} ASSISTANT:"


def answer_continuation(answer: str, stop: str) -> str:
    """Formats an answer as the continuation of `question_prompt`, with the stop token that ends it.

    Args:
        answer: The answer text.
        stop: The stop rule: the tokenizer's end-of-sequence token. Generation ends at the same token.

    Example:
        >>> answer_continuation("yes", "</s>")
        ' yes</s>'
    """
    return f" {answer}{stop}"


def conversation_text(turns: Sequence[tuple[str, str]], stop: str) -> tuple[str, list[tuple[int, int]]]:
    """Formats a whole conversation and says where in it the answers are.

    Args:
        turns: Pairs of question and answer, in order.
        stop: The tokenizer's end-of-sequence token.

    Returns:
        The text, and for every turn the half-open character range of the answer with its stop token: what the model
        learns to produce.

    Example:
        >>> text, spans = conversation_text([("Is there a lesion?", "yes")], "</s>")
        >>> [text[start:end] for start, end in spans]
        [' yes</s>']
    """
    text, spans = "", []
    for index, (question, answer) in enumerate(turns):
        text += question_prompt(question, first=index == 0)
        start = len(text)
        text += answer_continuation(answer, stop)
        spans.append((start, len(text)))
    return text, spans


def clean_answer(text: str) -> str:
    """Strips the white space around a generated answer; special tokens are dropped by the decoder already.

    Example:
        >>> clean_answer(" left lung ")
        'left lung'
    """
    return text.strip()
