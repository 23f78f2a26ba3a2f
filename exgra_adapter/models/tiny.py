"""A LLaVA of about one million parameters, made of the real Hugging Face classes with random weights.

It exists for the demo, for tests and for trying a data set before renting GPUs; it knows nothing before it is trained.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from exgra_adapter.prompts import IMAGE_TAG, conversation_text

_PATCH = 8
_VISION_WIDTH = 128
_LANGUAGE_WIDTH = 128
_VOCABULARY = 1024
_PAD, _BOS, _EOS = "<pad>", "<s>", "</s>"


def build_tiny_model(
    texts: Iterable[str], seed: int, image_size: int = 64, size: int = 1
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Builds a tiny random LLaVA and a tokenizer trained on `texts`.

    CLIP vision tower (2 layers, patches of 8 pixels), two-layer GELU projector, Llama language model (3 layers). The
    same texts and seed give the same weights and the same vocabulary.

    Args:
        texts: What the tokenizer learns its byte-level vocabulary from: questions, answers, extended answers. Text that
            does not occur here can still be read, in smaller pieces.
        seed: Seeds the weights. The global random state is left as it was.
        image_size: Side of the square input in pixels, a multiple of 8.
        size: Widths of vision tower and language model in multiples of 128; 3 has about eight times the parameters.

    Returns:
        The model (float32, CPU) and its processor.

    Raises:
        ValueError: `image_size` is not a positive multiple of 8, or `size` is below 1.

    Example:
        >>> model, processor = build_tiny_model(["Is there a lesion?", "yes"], seed=0)
        >>> model.config.text_config.hidden_size
        128
        >>> model.config.image_seq_length
        64
    """
    if image_size <= 0 or image_size % _PATCH:
        raise ValueError(
            f"build_tiny_model: image_size must be a positive multiple of {_PATCH}; got {image_size}. "
            f"Use {max(1, round(image_size / _PATCH)) * _PATCH}."
        )
    if size < 1:
        raise ValueError(f"build_tiny_model: size must be at least 1; got {size}. Use a positive whole number.")
    vision_width, language_width = size * _VISION_WIDTH, size * _LANGUAGE_WIDTH
    tokenizer = _train_tokenizer(texts)
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}
        ),
        tokenizer=tokenizer,
        patch_size=_PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=vision_width,
            intermediate_size=2 * vision_width,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=image_size,
            patch_size=_PATCH,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=language_width,
            intermediate_size=2 * language_width,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=2048,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TAG),
        image_seq_length=(image_size // _PATCH) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
        _make_brightness_visible(model)
    model.generation_config.bos_token_id = tokenizer.bos_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.eval(), processor


def _make_brightness_visible(model: LlavaForConditionalGeneration) -> None:
    """Scales the random vision embeddings so that a frozen tower passes on what a patch shows and where it is.

    CLIP normalises the sum of patch and position embedding. With the usual small position embeddings the length of the
    patch embedding, and with it the brightness of a flat patch, is lost; with both of similar size it stays readable.
    """
    embeddings = model.model.vision_tower.embeddings
    with torch.no_grad():
        torch.nn.init.normal_(embeddings.patch_embedding.weight, std=0.05)
        torch.nn.init.normal_(embeddings.position_embedding.weight, std=0.5)


def _train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    # The prefix space gives an answer the same tokens alone, in the text pass, as behind its question.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=[_PAD, _BOS, _EOS, IMAGE_TAG],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Words are learned as they stand in a conversation: behind a space, after the prompt's own words.
    tokenizer.train_from_iterator((conversation_text([(text, text)], "")[0] for text in texts), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_BOS} $A", special_tokens=[(_BOS, tokenizer.token_to_id(_BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=_BOS,
        eos_token=_EOS,
        pad_token=_PAD,
        additional_special_tokens=[IMAGE_TAG],
    )
