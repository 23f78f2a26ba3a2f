"""The tokenizer of an original checkpoint as a fast tokenizer, and back."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

from exgra_adapter.atomic import write_json

IMAGE_PATCH, IMAGE_START, IMAGE_END = "<im_patch>", "<im_start>", "<im_end>"
_PAD = "[PAD]"
_SENTENCEPIECE = "tokenizer.model"
_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")


@dataclass(frozen=True)
class ImageTokenizer:
    """A tokenizer that knows the image tokens.

    Attributes:
        tokenizer: The fast tokenizer.
        image_patch: Id of `<im_patch>`, which stands for one patch.
        markers: Whether it knows `<im_start>` and `<im_end>`.
        notes: What the user should know.
    """

    tokenizer: PreTrainedTokenizerFast
    image_patch: int
    markers: bool
    notes: list[str]

    @property
    def special_ids(self) -> dict[str, int]:
        """The three ids that a configuration repeats."""
        return {f"{role}_token_id": getattr(self.tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad")}


def open_tokenizer(folder: Path) -> ImageTokenizer:
    """Loads the tokenizer of an original checkpoint.

    `tokenizer.json` is taken as it is. Without it, `tokenizer.model` is converted; then white space beside the image
    tokens is dropped, as the tokenizer did that these checkpoints were trained with.

    Args:
        folder: The checkpoint.

    Raises:
        ValueError: There is none, packages to read it are missing, or it does not know the tokens that are needed.
    """
    folder = Path(folder)
    notes: list[str] = []
    if (folder / "tokenizer.json").is_file():
        loaded, strip = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True), False
    elif (folder / _SENTENCEPIECE).is_file():
        loaded, strip = _from_sentencepiece(folder), True
        notes.append("white space beside the image tokens is dropped, as in training of the source")
    else:
        raise ValueError(
            f"open_tokenizer: folder must hold tokenizer.json or {_SENTENCEPIECE}; got {folder} without both. "
            "Copy the tokenizer that belongs to the checkpoint."
        )
    known = loaded.get_vocab()
    if IMAGE_PATCH not in known:
        raise ValueError(
            f"open_tokenizer: the tokenizer in {folder} must know {IMAGE_PATCH}; got {len(loaded)} tokens without it. "
            "Only checkpoints with image tokens in their vocabulary (LLaVA v0, LLaVA-Med, ExGra-Med) can be converted."
        )
    markers = IMAGE_START in known and IMAGE_END in known
    images = [IMAGE_PATCH, *((IMAGE_START, IMAGE_END) if markers else ())]
    roles = {role: str(token) for role in _ROLES if (token := getattr(loaded, role)) is not None}
    for role in ("bos_token", "eos_token"):
        if role not in roles:
            raise ValueError(
                f"open_tokenizer: the tokenizer in {folder} must have a {role}; got none. "
                "Complete special_tokens_map.json."
            )
    if "pad_token" not in roles:
        roles["pad_token"] = _PAD if _PAD in known else roles.get("unk_token", roles["eos_token"])
        notes.append(f"the tokenizer names no pad token: {roles['pad_token']} is taken")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_with_special(loaded, {roles["pad_token"]: False} | dict.fromkeys(images, strip)),
        model_max_length=loaded.model_max_length,
        padding_side=loaded.padding_side,
        clean_up_tokenization_spaces=False,
        additional_special_tokens=images,
        **roles,
    )
    before, after = ({token: vocabulary[token] for token in known} for vocabulary in (known, tokenizer.get_vocab()))
    encoded = tokenizer("".join(images), add_special_tokens=False)["input_ids"]
    if before != after or len(tokenizer) != len(known) or encoded != [known[token] for token in images]:
        raise ValueError(
            f"open_tokenizer: {', '.join(images)} must be single tokens; got {encoded}. "
            "Give the tokenizer that belongs to the checkpoint."
        )
    return ImageTokenizer(tokenizer, known[IMAGE_PATCH], markers, notes)


def keep_sentencepiece(source: Path, output: Path) -> None:
    """Copies `tokenizer.model`, which the fast tokenizer does not need but the original code does."""
    if (source / _SENTENCEPIECE).is_file():
        shutil.copyfile(source / _SENTENCEPIECE, output / _SENTENCEPIECE)


def write_original_tokenizer(source: Path, output: Path) -> list[str]:
    """Writes a Hugging Face folder's tokenizer as the original code reads it.

    Args:
        source: The Hugging Face folder.
        output: Receives the files.

    Returns:
        What the user should know.
    """
    tokenizer = PreTrainedTokenizerFast.from_pretrained(source, local_files_only=True)
    tokenizer.save_pretrained(output)
    roles: dict[str, Any] = {
        role: str(token) for role in _ROLES if (token := getattr(tokenizer, role, None)) is not None
    }
    has_model = (source / _SENTENCEPIECE).is_file()
    write_json(output / "special_tokens_map.json", roles)
    # What was added to the model itself has the ids behind its own.
    added = {token: number for token, number in tokenizer.get_added_vocab().items() if number >= tokenizer.vocab_size}
    write_json(output / "added_tokens.json", dict(sorted(added.items(), key=lambda item: item[1])))
    write_json(
        output / "tokenizer_config.json",
        {
            **roles,
            "add_bos_token": True,
            "add_eos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": tokenizer.model_max_length,
            "padding_side": tokenizer.padding_side,
            "tokenizer_class": "LlamaTokenizer" if has_model else "PreTrainedTokenizerFast",
        },
    )
    if has_model:
        keep_sentencepiece(source, output)
        return []
    return [f"the source has no {_SENTENCEPIECE}: the original code's own tokenizer class cannot read the output"]


def _with_special(loaded: PreTrainedTokenizerFast, tokens: dict[str, bool]) -> Tokenizer:
    """Makes added tokens special, so that decoding can leave them out; the values say whether they drop white space."""
    content = json.loads(loaded.backend_tokenizer.to_str())
    for token in content["added_tokens"]:
        if token["content"] in tokens:
            strip = tokens[token["content"]]
            token |= {"special": True, "normalized": False, "lstrip": strip, "rstrip": strip}
    return Tokenizer.from_str(json.dumps(content))


def _from_sentencepiece(folder: Path) -> PreTrainedTokenizerFast:
    missing = [
        package
        for package, module in {"sentencepiece": "sentencepiece", "protobuf": "google"}.items()
        if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise ValueError(
            f"open_tokenizer: converting {folder / _SENTENCEPIECE} needs the packages sentencepiece and protobuf; got "
            f"no {' and no '.join(missing)}. Install with `pip install sentencepiece protobuf`, "
            "or put the tokenizer.json of the same tokenizer beside it."
        )
    settings = folder / "tokenizer_config.json"
    content = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    # Older configurations know no `legacy`; their tokenizer put a space in front of every piece of text.
    return LlamaTokenizer.from_pretrained(folder, local_files_only=True, legacy=content.get("legacy", True))
