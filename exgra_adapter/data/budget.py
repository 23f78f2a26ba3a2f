"""How many tokens the language model reads per sample, to give runs the same compute."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from exgra_adapter.data.collator import Collator
from exgra_adapter.data.records import Record
from exgra_adapter.prompts import IMAGE_TAG

_SAMPLES = 2048


def compute_factor(records: Sequence[Record], collator: Collator, with_extended_text: bool) -> float:
    """Returns how much longer a run without text passes must be to process as many tokens as an aligned one.

    Counted without padding, over at most 2048 samples spread over the data.

    Args:
        records: The data, with extended answers.
        collator: Tokenizes as in training.
        with_extended_text: Whether the run reads every conversation a second time with the extended answers.
    """
    image = _image_tokens(collator)
    chosen = records[:: max(1, len(records) // _SAMPLES)][:_SAMPLES]
    main, extended, texts = (0, 0, 0)
    for record in chosen:
        answers = [(turn.question, turn.answer) for turn in record.turns]
        longer = [(turn.question, turn.extended_answer or turn.answer) for turn in record.turns]
        main += _conversation_tokens(collator, answers, image)
        extended += _conversation_tokens(collator, longer, image)
        texts += sum(_tokens(collator, " ".join(answer for _, answer in turns)) for turns in (answers, longer))
    own = main + extended if with_extended_text else main
    return (main + texts) / own


def _conversation_tokens(collator: Collator, turns: Sequence[tuple[str, str]], image: int) -> int:
    text, _ = collator.prompt.conversation(turns)
    before, _, behind = text.partition(IMAGE_TAG)
    return min(_tokens(collator, before + behind) + image, collator.options.max_length)


def _image_tokens(collator: Collator) -> int:
    processor = collator.processor
    made = processor(text=[processor.image_token], images=[Image.new("RGB", (224, 224))], return_tensors="pt")
    return int((made["input_ids"] == processor.image_token_id).sum())


def _tokens(collator: Collator, text: str) -> int:
    return min(len(collator.processor.tokenizer(text)["input_ids"]), collator.options.max_length)
