r"""The prompt formats as chat templates, for servers that are handed messages instead of a prompt.

A template says the same as its format in `exgra_adapter.prompts`: what a server puts to the model is what the model was
taught. A system message stands in front of the conversation; images stand where the format has them, wherever the
client put them among the texts of its message.
"""

from __future__ import annotations

import json
from typing import Any

from exgra_adapter.prompts import SYSTEM_TEXT

# Both forms that clients send: a text, or a list of parts. vLLM looks for these loops to know what it may hand over.
_IMAGES = (
    "{{% if message['content'] is not string %}}{{% for part in message['content'] %}}"
    "{{% if part['type'] == 'image' %}}{{{{ {image} }}}}{{% endif %}}{{% endfor %}}{{% endif %}}"
)
_TEXT = (
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
)
_FORMATS = {
    "llava": (
        "{% for message in messages %}{% if message['role'] == 'user' %}{{ 'USER: ' }}IMAGESTEXT"
        "{% elif message['role'] == 'assistant' %}{{ ' ASSISTANT: ' }}TEXT{{ STOP }}"
        "{% else %}TEXT{{ ' ' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
    ),
    "released": (
        "{% if messages[0]['role'] != 'system' %}{{ SYSTEM }}{{ '\\n\\n###' }}{% endif %}"
        "{% for message in messages %}{% if message['role'] == 'user' %}{{ ' Human: ' }}TEXTIMAGES{{ '\\n###' }}"
        "{% elif message['role'] == 'assistant' %}{{ ' Assistant: ' }}TEXT{{ '\\n###' }}"
        "{% else %}TEXT{{ '\\n\\n###' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ ' Assistant:' }}{% endif %}"
    ),
}


def chat_template(name: str, processor: Any) -> str:
    r"""Writes a prompt format as a Jinja chat template.

    The token that the tokenizer puts in front of a text stands in the template: some servers render it and add none.

    Args:
        name: "llava" or "released", as in `exgra_adapter.prompts.prompt_format`.
        processor: The model's processor.

    Returns:
        The template: one line.

    Raises:
        ValueError: The name is another.

    Example:
        >>> from exgra_adapter.models import build_tiny_model
        >>> processor = build_tiny_model(["Is there a lesion?"], seed=0)[1]
        >>> processor.chat_template = chat_template("llava", processor)
        >>> parts = [{"type": "text", "text": "Is there a lesion?"}, {"type": "image"}]
        >>> processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
        '<s>USER: <image>\nIs there a lesion? ASSISTANT:'
    """
    if name not in _FORMATS:
        raise ValueError(
            f"chat_template: name must be llava or released; got {name!r}. A model that was trained with prompt="
            "chat_template has a template already."
        )
    tokenizer, image = processor.tokenizer, processor.image_token
    shown = f"{image}\n" if name == "llava" else f"\n<im_start>{image}<im_end>"
    body = _FORMATS[name]
    for mark, text in (
        ("IMAGES", _IMAGES.format(image=_quoted(shown))),
        ("TEXT", _TEXT),
        ("STOP", _quoted(tokenizer.eos_token)),
        ("SYSTEM", _quoted(SYSTEM_TEXT)),
    ):
        body = body.replace(mark, text)
    first = tokenizer.bos_token
    starts = first is not None and tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
    return (f"{{{{ {_quoted(first)} }}}}" if starts else "") + body


def _quoted(text: str) -> str:
    """A text as Jinja writes it between quotes."""
    return json.dumps(text, ensure_ascii=False)
