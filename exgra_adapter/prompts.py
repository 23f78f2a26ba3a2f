r"""The one place that says how a question is put to the model and where an answer ends.

Training and generation both build their text here, so a model is asked exactly as it was taught. Three formats:

- `llava`, that of LLaVA-1.5: `USER: <image>\nquestion ASSISTANT: answer</s>USER: next question ASSISTANT: ...`.
- `released`, that of LLaVA's first version, which LLaVA-Med and ExGra-Med continue: turns between `###`, the image
  behind the first question between `<im_start>` and `<im_end>`.
- `chat_template`, the template that comes with the model's processor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

IMAGE_TAG = "<image>"
"""Stands for the image in a prompt; it is replaced by one token per image patch."""

IMAGE_ENDS = ("<im_start>", "<im_end>")
"""Tokens on both sides of the image in the released recipe's format."""

SYSTEM_TEXT = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the human's questions."
)
"""What the released recipe puts in front of a conversation."""

Turns = Sequence[tuple[str, str]]


class PromptFormat(ABC):
    """How a conversation becomes text.

    Attributes:
        stop: The text that ends an answer; a model is taught to produce it, and generation ends there.
    """

    stop: str

    @property
    def reserved(self) -> frozenset[str]:
        """Texts that a question or an answer must not contain, since they structure the conversation."""
        return frozenset({IMAGE_TAG, self.stop})

    @abstractmethod
    def prompt(self, question: str, earlier: Turns = ()) -> str:
        """Formats a question, after earlier turns, up to the point where the model starts to answer."""

    @abstractmethod
    def conversation(self, turns: Turns) -> tuple[str, list[tuple[int, int]]]:
        """Formats a whole conversation and says where in it the answers are.

        Returns:
            The text, with `IMAGE_TAG` once and ahead of all answers, and for every turn the half-open character range
            of the answer with its stop: what the model learns to produce.
        """


class LlavaPrompt(PromptFormat):
    r"""LLaVA-1.5's format.

    Args:
        stop: The tokenizer's end-of-sequence token.

    Example:
        >>> LlavaPrompt("</s>").conversation([("Is there a lesion?", "yes")])
        ('USER: <image>\nIs there a lesion? ASSISTANT: yes</s>', [(43, 51)])
    """

    def __init__(self, stop: str) -> None:
        self.stop = stop

    def prompt(self, question: str, earlier: Turns = ()) -> str:
        """Formats a question after earlier turns."""
        return self.conversation(earlier)[0] + question_prompt(question, first=not earlier)

    def conversation(self, turns: Turns) -> tuple[str, list[tuple[int, int]]]:
        """Formats turns."""
        return conversation_text(turns, self.stop)


class ReleasedPrompt(PromptFormat):
    r"""The format of the released training recipe.

    Source: LLaVA's first conversation format; ExGra-Med's checkpoints are asked in it.

    Example:
        >>> ReleasedPrompt().prompt("Is there a lesion?").endswith(
        ...     "### Human: Is there a lesion?\n<im_start><image><im_end>\n### Assistant:"
        ... )
        True
    """

    stop = "###"

    @property
    def reserved(self) -> frozenset[str]:
        """The stop text, and what marks the image."""
        return super().reserved | {*IMAGE_ENDS}

    def prompt(self, question: str, earlier: Turns = ()) -> str:
        """Formats a question after earlier turns."""
        image = "" if earlier else f"\n<im_start>{IMAGE_TAG}<im_end>"
        return f"{self.conversation(earlier)[0]} Human: {question}{image}\n### Assistant:"

    def conversation(self, turns: Turns) -> tuple[str, list[tuple[int, int]]]:
        """Formats turns."""
        text, spans = f"{SYSTEM_TEXT}\n\n###", []
        for index, (question, answer) in enumerate(turns):
            image = "" if index else f"\n<im_start>{IMAGE_TAG}<im_end>"
            text += f" Human: {question}{image}\n### Assistant:"
            start = len(text)
            text += f" {answer}\n###"
            spans.append((start, len(text)))
        return text, spans


class ChatTemplatePrompt(PromptFormat):
    """The chat template of a processor.

    Its stop is the token that the template puts behind an answer.

    Args:
        processor: A processor with `apply_chat_template` and `image_token`.

    Raises:
        ValueError: The processor has no template, or one that does not show images or does not end answers.
    """

    def __init__(self, processor: Any) -> None:
        if not getattr(processor, "chat_template", None):
            raise ValueError(
                f"ChatTemplatePrompt: processor must have a chat template; got {type(processor).__name__} without one. "
                "Take prompt=llava or released, or add chat_template.jinja to the model folder."
            )
        self.processor = processor
        # A tokenizer that adds this token itself would double that of the template.
        tokenizer = processor.tokenizer
        adds_it = tokenizer.bos_token and tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
        self._doubled = tokenizer.bos_token if adds_it else ""
        question, answer = "Which organ is it?", "liver"
        text = self._render(self._messages([(question, answer)]), False)
        _, found, behind = text.rpartition(answer)
        if text.count(IMAGE_TAG) != 1 or not found:
            raise ValueError(
                "ChatTemplatePrompt: the chat template must show the image once, and the answer; got "
                f"{text!r}. Take prompt=llava, or a template for images."
            )
        known = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
        ends = [token for token in known if behind.lstrip().startswith(token)]
        if not ends:
            raise ValueError(
                "ChatTemplatePrompt: the chat template must end an answer with a token of its own, or a model never "
                f"learns to stop; got {behind!r} behind the answer. Take prompt=llava."
            )
        self.stop = max(ends, key=len)

    def prompt(self, question: str, earlier: Turns = ()) -> str:
        """Formats a question after earlier turns."""
        return self._render([*self._messages(earlier), self._question(question, not earlier)], True)

    def conversation(self, turns: Turns) -> tuple[str, list[tuple[int, int]]]:
        """Formats turns.

        Raises:
            ValueError: A question's prompt is not how the conversation begins, so that a model would be asked otherwise
                than it was taught; or an answer is not as it was given.
        """
        text = self._render(self._messages(turns), False)
        spans = []
        for index, (question, answer) in enumerate(turns):
            prompt = self.prompt(question, turns[:index])
            start, place = len(prompt), text.find(answer, len(prompt))
            stop = text.find(self.stop, place + len(answer))
            around = text[start:place] + text[place + len(answer) : stop]
            if not text.startswith(prompt) or place < 0 or stop < 0 or around.strip():
                raise ValueError(
                    "ChatTemplatePrompt: the chat template must repeat earlier turns and answers unchanged; got "
                    f"another text for turn {index}. Take prompt=llava."
                )
            spans.append((start, stop + len(self.stop)))
        return text, spans

    def _messages(self, turns: Turns) -> list[dict[str, Any]]:
        messages = []
        for index, (question, answer) in enumerate(turns):
            content = [{"type": "text", "text": answer}]
            messages += [self._question(question, index == 0), {"role": "assistant", "content": content}]
        return messages

    def _question(self, question: str, first: bool) -> dict[str, Any]:
        image = [{"type": "image"}] if first else []
        return {"role": "user", "content": [*image, {"type": "text", "text": question}]}

    def _render(self, messages: list[dict[str, Any]], generate: bool) -> str:
        if not messages:
            return ""
        text = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate)
        return str(text).removeprefix(self._doubled).replace(self.processor.image_token, IMAGE_TAG, 1)


def prompt_format(name: str, processor: Any) -> PromptFormat:
    """Makes the format that a setting names.

    Args:
        name: "llava", "released" or "chat_template".
        processor: The model's processor.

    Raises:
        ValueError: The name is unknown, or the processor lacks what the format needs.
    """
    if name == "llava":
        return LlavaPrompt(processor.tokenizer.eos_token)
    if name == "chat_template":
        return ChatTemplatePrompt(processor)
    if name != "released":
        raise ValueError(
            f"prompt_format: name must be llava, released or chat_template; got {name!r}. Choose one of them."
        )
    missing = [token for token in IMAGE_ENDS if token not in processor.tokenizer.get_vocab()]
    if missing:
        raise ValueError(
            f"prompt_format: the tokenizer must know <im_start> and <im_end> for prompt=released; got one without "
            f"{missing[0]}. Convert the original checkpoint with `exgra-med convert`, or take prompt=llava."
        )
    return ReleasedPrompt()


def question_prompt(question: str, first: bool = True) -> str:
    r"""Formats one question in LLaVA-1.5's format up to the point where the model starts to answer.

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


def conversation_text(turns: Turns, stop: str) -> tuple[str, list[tuple[int, int]]]:
    """Formats a whole conversation in LLaVA-1.5's format and says where in it the answers are.

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


def clean_answer(text: str, stop: str = "") -> str:
    """Strips the white space around a generated answer, and what follows a stop text that is not a special token.

    Example:
        >>> clean_answer(" left lung ")
        'left lung'
        >>> clean_answer(" left lung###", "###")
        'left lung'
    """
    return (text.partition(stop)[0] if stop else text).strip()
