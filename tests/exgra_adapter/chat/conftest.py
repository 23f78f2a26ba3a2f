"""Tiny models with random weights that answers depend on, and images, good and bad."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from exgra_adapter.chat.speaker import Speaker
from exgra_adapter.models import build_tiny_model
from exgra_adapter.prompts import IMAGE_ENDS

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@dataclass(frozen=True)
class Setting:
    """Model folders and a folder of images.

    Attributes:
        model, other: Models that answer differently.
        talkative: One that never ends an answer by itself.
        forgetful: One whose context holds an image and a few words.
    """

    model: Path
    other: Path
    talkative: Path
    forgetful: Path
    images: Path

    def image(self, name: str = "0.png") -> Path:
        return self.images / name


def save_model(folder: Path, seed: int, context: int = 2048, talkative: bool = False) -> Path:
    """Saves a model that answers in letters, or, talkative, in any bytes and without an end."""
    texts = ["Which organ is shown?", "Is a lesion visible?", "On which side?", "yes", "no", "liver", "left"]
    model, processor = build_tiny_model(texts, seed=seed)
    processor.tokenizer.add_tokens(list(IMAGE_ENDS), special_tokens=True)
    processor.chat_template = TEMPLATE
    model.resize_token_embeddings(len(processor.tokenizer))
    with torch.no_grad():  # Random weights repeat one token; larger ones make the answers depend on the prompt.
        for parameter in model.model.language_model.parameters():
            parameter.mul_(3)
        vocabulary = processor.tokenizer.get_vocab()
        end = processor.tokenizer.eos_token_id
        letters = {place for token, place in vocabulary.items() if re.fullmatch(r"Ġ?[A-Za-z]+", token)}
        # The likeliest of random logits is above zero.
        silent = {end} if talkative else set(vocabulary.values()) - letters - {end}
        model.lm_head.weight[sorted(silent)] = 0
    model.config.text_config.max_position_embeddings = context
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def bomb(width: int, height: int) -> bytes:
    """A PNG file whose header promises more pixels than it has."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.fixture(scope="session")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    folder = tmp_path_factory.mktemp("chat")
    images = folder / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for name in ("0.png", "1.png", "two words.png"):
        Image.fromarray(rng.integers(0, 256, (64, 80), dtype=np.uint8)).save(images / name)
    (images / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    (images / "bomb.png").write_bytes(bomb(60_000, 60_000))
    return Setting(
        save_model(folder / "first", 0),
        save_model(folder / "second", 1),
        save_model(folder / "talkative", 2, talkative=True),
        save_model(folder / "forgetful", 3, context=180),
        images,
    )


@pytest.fixture(scope="session")
def make_speaker(setting: Setting) -> Callable[..., Speaker]:
    """Loads one of the models; answers are short."""

    def make(**changes: Any) -> Speaker:
        values = {"folder": setting.model, "device": "cpu", "max_new_tokens": 12, **changes}
        return Speaker(**values)

    return make


@pytest.fixture(scope="session")
def speaker(make_speaker: Callable[..., Speaker]) -> Speaker:
    return make_speaker()
