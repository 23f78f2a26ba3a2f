"""A model that continues conversations: its answers arrive token by token and can be stopped."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from exgra_adapter.chat.conversation import MOST_QUESTION_CHARACTERS, Conversation, Exchange
from exgra_adapter.evaluation.answering import ModelReader, Precision, check_generation, draw_seed, trained_prompt
from exgra_adapter.evaluation.generate import generation_settings, model_inputs, own_stop, refused_text
from exgra_adapter.prompts import clean_answer

# How long a reader of an answer sleeps at most before it looks whether the thread that writes it has ended.
_NAP = 0.1
_UNFINISHED = "\ufffd"  # What a decoder makes of the first bytes of a character.


class Speaker:
    """A loaded model with the settings of its answers.

    Answers are those of `exgra_adapter.evaluation.generate.generate_texts`: the same prompts, decoding and stop. One is
    given at a time; another waits.

    Args:
        folder: The model folder, as `load_model` takes it.
        device: Such as "cpu", "cuda" or "cuda:1"; None: a GPU where there is one.
        max_new_tokens: Longest answer in tokens.
        temperature: 0 takes the likeliest token each time; above 0 tokens are drawn.
        seed: Of these draws; the same conversation gets the same answers.
        prompt: The conversation format; None: the one that the model was trained in.
        precision: Of weights and arithmetic.
        history: Whether questions are put with the earlier ones. Models that were taught single questions, as those of
            `exgra-med train vqa` mostly are, answer a question on its own better.

    Attributes:
        name: What the model is called: the name of its folder.
        device: Where it runs.

    Raises:
        ValueError: A setting is out of range, or the model cannot be loaded.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from exgra_adapter.models import build_tiny_model
        >>> folder = Path(tempfile.mkdtemp())
        >>> for part in build_tiny_model(["Is there a lesion?"], seed=0):
        ...     _ = part.save_pretrained(folder)
        >>> speaker = Speaker(folder, "cpu", max_new_tokens=2)
        >>> conversation = Conversation(Image.new("RGB", (64, 64)))
        >>> for text in speaker.answer(conversation, "Is there a lesion?"):
        ...     pass
        >>> conversation.exchanges[0].question
        'Is there a lesion?'
    """

    def __init__(
        self,
        folder: Path,
        device: str | None = None,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
        prompt: str | None = None,
        precision: Precision = "fp32",
        history: bool = True,
    ) -> None:
        check_generation("chat", 1, max_new_tokens, "count", precision, temperature)
        chosen = None if device is None else _device(device)
        self.folder = Path(folder)
        self.name = self.folder.resolve().name
        self.max_new_tokens, self.temperature, self.seed = max_new_tokens, temperature, seed
        self.history = history
        self.prompt_name = trained_prompt(self.folder) if prompt is None else prompt
        self.model, self.processor, self.prompt = ModelReader(self.folder, self.prompt_name, precision, chosen).loaded
        self.device = str(self.model.device)
        self._context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if self._context is not None and max_new_tokens >= self._context:
            raise ValueError(
                f"chat: max_new_tokens must be less than the {self._context} tokens that the model reads and writes "
                f"in all; got {max_new_tokens}. Ask for shorter answers."
            )
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chat")
        self._answers: weakref.WeakSet[Answer] = weakref.WeakSet()

    def answer(self, conversation: Conversation, question: str) -> Answer:
        """Puts a question to the model.

        Args:
            conversation: Receives the question with its answer once that is complete or stopped. Where the context is
                full, its oldest exchanges are forgotten at once.
            question: The question.

        Returns:
            The answer while it is given.

        Raises:
            ValueError: There is no image yet, the question is empty, too long, or spells a special token, or the model
                fails. The answer raises it too where the model fails; then the conversation is as it was before.
        """
        question = question.strip()
        if conversation.image is None:
            raise ValueError("chat: a question must follow an image; got none so far. Show one first.")
        if not question:
            raise ValueError("chat: a question must not be empty; got no text. Ask something.")
        if len(question) > MOST_QUESTION_CHARACTERS:
            raise ValueError(
                f"chat: a question must have at most {MOST_QUESTION_CHARACTERS} characters; got {len(question)}. "
                "Ask in fewer words."
            )
        refusal = refused_text([question], self.processor, self.prompt)
        if refusal is not None:
            raise ValueError(refusal)
        forgotten = conversation.forgotten
        with _refusing_failures(self.device):
            inputs = self._fitting_inputs(conversation, question)
        answer = Answer(self, conversation, question, inputs, forgotten)
        self._answers.add(answer)
        return answer

    def stop(self) -> None:
        """Ends all answers that are being given or wait."""
        for answer in list(self._answers):
            answer.stop()

    def settings(self) -> dict[str, Any]:
        """Returns what answers depend on, as JSON values."""
        return {
            "model": str(self.folder),
            "prompt": self.prompt_name,
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "history": self.history,
        }

    def _fitting_inputs(self, conversation: Conversation, question: str) -> Any:
        """What the model reads; forgets the oldest exchanges until it leaves room for the longest answer."""
        forgotten = conversation.forgotten
        while True:
            kept = conversation.exchanges[forgotten:] if self.history else []
            # An answer that spells a special token would be read as one.
            earlier = [(each.question, each.answer) for each in kept if self._can_be_read(each.answer)]
            inputs = model_inputs(self.processor, [self.prompt.prompt(question, earlier)], [conversation.image])
            length = inputs["input_ids"].shape[1]
            if self._context is None or length + self.max_new_tokens <= self._context:
                inputs = inputs.to(self.model.device, self.model.dtype)
                conversation.forgotten = forgotten
                return inputs
            if not kept:
                raise ValueError(
                    f"chat: image, question and answer must have at most {self._context} tokens together; got {length} "
                    f"of image and question and {self.max_new_tokens} of the answer. Ask in fewer words, or lower "
                    "--max-new-tokens."
                )
            forgotten += 1

    def _can_be_read(self, text: str) -> bool:
        return refused_text([text], self.processor, self.prompt) is None


class Answer(Iterator[str]):
    """An answer while it is given: iterating yields the text so far, each time it has grown.

    An exception that interrupts the iteration, such as that of Ctrl-C, loses nothing: iterating can go on.

    Attributes:
        text: The text so far.
        stopped: Whether `stop` ended it early.
    """

    def __init__(
        self, speaker: Speaker, conversation: Conversation, question: str, inputs: Any, forgotten: int
    ) -> None:
        self.text, self.stopped = "", False
        self._speaker, self._conversation, self._question = speaker, conversation, question
        self._forgotten_before = forgotten
        self._stop_text = own_stop(speaker.processor, speaker.prompt)
        self._tokens, self._shown, self._recorded = _Tokens(), 0, False
        self._stop = threading.Event()
        seed = draw_seed(speaker.seed, len(conversation.exchanges))
        self._work = speaker._thread.submit(self._generate, inputs, seed)

    def stop(self) -> None:
        """Ends the answer at the next token; what there is of it is kept."""
        self._stop.set()
        self._tokens.news.set()

    def __next__(self) -> str:
        """Waits until the text has grown."""
        while True:
            self._tokens.news.clear()
            finished = self._work.done()
            text = self._read(finished)
            if text != self.text:
                self.text = text
                return text
            if finished:
                self._finish()
                raise StopIteration
            self._tokens.news.wait(_NAP)

    @torch.inference_mode()
    def _generate(self, inputs: Any, seed: int) -> None:
        speaker = self._speaker
        settings = generation_settings(
            speaker.processor, speaker.prompt, speaker.max_new_tokens, speaker.temperature, [seed]
        )
        if self._stop.is_set():
            return
        speaker.model.generate(
            **inputs,
            **settings,
            streamer=self._tokens,
            stopping_criteria=StoppingCriteriaList([_Stopped(self._stop)]),
        )

    def _read(self, finished: bool) -> str:
        """The text of all tokens so far, without an end that more tokens may change."""
        tokens = self._tokens.values[:]
        if len(tokens) == self._shown and not finished:
            return self.text
        self._shown = len(tokens)
        text = self._speaker.processor.tokenizer.decode(tokens, skip_special_tokens=True)
        if not finished:
            text = text.rstrip(_UNFINISHED)
            text = text[: len(text) - _begun(text, self._stop_text)]
        return clean_answer(text, self._stop_text)

    def _finish(self) -> None:
        if self._recorded:
            return
        self._recorded = True
        try:
            with _refusing_failures(self._speaker.device):
                self._work.result()
        except ValueError:
            self._conversation.forgotten = self._forgotten_before
            raise
        self.stopped = self._stop.is_set()
        if self.text or not self.stopped:
            self._conversation.exchanges.append(Exchange(self._question, self.text, self.stopped))


@contextmanager
def _refusing_failures(device: str) -> Iterator[None]:
    """Turns what a model that fails raises into a sentence: a chat goes on."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise ValueError(
            f"chat: the conversation must fit into the memory of {device}; got one that does not. "
            "Begin anew, or choose --precision bf16 or another --device."
        ) from None
    except (RuntimeError, IndexError, MemoryError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f"chat: the model must be able to answer; got an error: {reason}. Ask something else, or begin anew."
        ) from error


class _Tokens(BaseStreamer):
    """Collects the tokens that `generate` hands over, the prompt excepted; `news` is set at each."""

    def __init__(self) -> None:
        self.values: list[int] = []
        self.news = threading.Event()
        self._after_prompt = False

    def put(self, value: Tensor) -> None:
        """Takes the prompt, the first time, and then a token at a time."""
        if self._after_prompt:
            self.values += value.flatten().tolist()
            self.news.set()
        self._after_prompt = True

    def end(self) -> None:
        """Wakes the reader."""
        self.news.set()


class _Stopped(StoppingCriteria):
    """Ends generation once an event is set."""

    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Says for each row whether it is done."""
        return torch.full((input_ids.shape[0],), self._event.is_set(), dtype=torch.bool, device=input_ids.device)


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of a text may be the beginning of the stop text."""
    return next((length for length in range(len(stop) - 1, 0, -1) if text.endswith(stop[:length])), 0)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"chat: device must be such as cpu, cuda or cuda:1; got {name!r}. Choose one.") from None
    available = torch.cuda.device_count() if device.type == "cuda" else 1
    if device.type == "mps" and not torch.backends.mps.is_available():
        available = 0
    if (device.index or 0) >= available:
        raise ValueError(
            f"chat: device must be one that PyTorch sees; got {name}, and it sees {available} of that kind. "
            "Take --device cpu, or leave the option out."
        )
    return device
