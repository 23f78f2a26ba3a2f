"""From Hugging Face `LlavaForConditionalGeneration` to the original format."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlavaConfig

from exgra_adapter.alignment import ALIGNMENT_FILE
from exgra_adapter.atomic import write_json
from exgra_adapter.conversion import names
from exgra_adapter.conversion.checkpoint import Checkpoint
from exgra_adapter.conversion.plan import Change, Dropped, How, Plan, Transfer, find_problems, summarize
from exgra_adapter.conversion.projector import UNFOLDED_FILE, connector_of_layers, fold_dci, is_identity, unfold_dci
from exgra_adapter.conversion.tokenizer import write_original_tokenizer

_FIRST, _SECOND = f"{names.PROJECTOR}linear_1", f"{names.PROJECTOR}linear_2"
_NO_VISION = "the original format names its vision tower in mm_vision_tower and holds no weights of it"
# What published towers call themselves: (width, layers, patch, image size).
_KNOWN_TOWERS = {
    (1024, 24, 14, 224): "openai/clip-vit-large-patch14",
    (1024, 24, 14, 336): "openai/clip-vit-large-patch14-336",
}


def plan_to_original(source: Path, options: names.Options) -> Plan:
    """Plans a conversion; reads headers and the projector's second layer.

    Args:
        source: A `LlavaForConditionalGeneration` folder with a Llama language model and a CLIP vision tower.
        options: What the user chose.

    Returns:
        The plan. Where `conversion.json` says how the folder came about, settings that Hugging Face has no place for,
        and the names of vision tensors, are taken from there.

    Raises:
        ValueError: The source is not complete, or has something that the original format has no place for.
    """
    config = LlavaConfig.from_pretrained(source, local_files_only=True)
    _check_config(config)
    if not (source / "tokenizer.json").is_file():
        raise ValueError(
            f"convert: source must hold tokenizer.json; got {source} without it. Save the processor there."
        )
    connector = connector_of_layers(config.vision_feature_layer, config.vision_config.num_hidden_layers)
    if options.dense_connector not in (None, connector):
        raise ValueError(
            f"convert: --dense-connector must be what vision_feature_layer says, {connector}; "
            f"got {options.dense_connector}. Leave the option out."
        )
    record = _read_record(source)
    remembered = record.get("original_config") or {}
    builder = _Builder(Checkpoint(source), config, options.dtype)
    builder.check(source)
    tied = bool(remembered.get("tie_word_embeddings")) and builder.head_equals_embeddings()
    builder.add_language(tied)
    builder.add_projector(source, connector == "dci")
    builder.add_vision(record.get("vision_prefix"))
    builder.add_alignment(source / ALIGNMENT_FILE)
    original = _original_config(config, remembered, options.vision_tower, builder, tied, connector != "none")
    notes = builder.notes
    if connector != "none":
        notes.append(f"the original format does not store the kind of the dense connector: remember {connector}")
    base = {} if remembered else {"mm_vision_tower": None}

    def write_companions(folder: Path) -> None:
        notes.extend(write_original_tokenizer(source, folder))
        ids = {name: original[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        write_json(folder / "generation_config.json", ids)
        write_json(folder / "config.json", original)

    changes = [Change(key, value, original.get(key)) for key, value in (remembered or base).items()]
    return Plan(
        "original",
        builder.transfers,
        builder.dropped,
        [change for change in changes if change.before != change.after],
        notes,
        write_companions,
        {"dense_connector": connector},
    )


class _Builder:
    """Collects the transfers of one conversion."""

    def __init__(self, checkpoint: Checkpoint, config: LlavaConfig, dtype: torch.dtype | None) -> None:
        self.checkpoint = checkpoint
        self.config = config
        self.dtype = dtype
        self.keys = {names.on_disk(key): key for key in checkpoint.tensors if not key.endswith(names.ROTARY)}
        self.transfers: list[Transfer] = []
        self.dropped = [Dropped(k, names.ROTARY_REASON) for k in checkpoint.tensors if k.endswith(names.ROTARY)]
        self.notes: list[str] = []
        position_ids = f"{names.VISION}embeddings.position_ids"
        if position_ids in self.keys:
            self.dropped.append(Dropped(self.keys.pop(position_ids), "counts from 0: made anew"))

    def check(self, source: Path) -> None:
        """Checks that the source has every tensor its configuration describes, and no other."""
        found = {name: self.checkpoint.tensors[key].shape for name, key in self.keys.items()}
        expected = names.model_shapes(self.config)
        if self.config.tie_word_embeddings:
            expected.pop(names.HEAD)
            found.pop(names.HEAD, None)
        problems = find_problems(found, expected)
        if problems:
            raise ValueError(
                f"convert: the tensors in {source} must be those that its config.json describes; got: "
                f"{summarize(problems)}. Use the config.json that belongs to these weights."
            )

    def read(self, name: str) -> Tensor:
        """Reads a tensor by its name on disk."""
        return self.checkpoint.read(self.keys[name])

    def head_equals_embeddings(self) -> bool:
        """Whether the head is still the copy of the embeddings as which it was written."""
        return names.HEAD not in self.keys or torch.equal(
            self.read(names.HEAD), self.read(f"{names.LANGUAGE}embed_tokens.weight")
        )

    def add_language(self, tied: bool) -> None:
        """Plans the language model."""
        for name, key in self.keys.items():
            if name == names.HEAD and tied:
                self.dropped.append(Dropped(key, "equals the embeddings, to which the original ties it"))
            elif name == names.HEAD:
                self._copy(names.ORIGINAL_HEAD, name)
            elif name.startswith(names.LANGUAGE):
                self._copy("model." + name.removeprefix(names.LANGUAGE), name)
        if names.HEAD not in self.keys and not tied:
            self._add(names.ORIGINAL_HEAD, f"{names.LANGUAGE}embed_tokens.weight", "copied", None)

    def add_projector(self, source: Path, dci: bool) -> None:
        """Plans the projector: as one layer where the second stands for none."""
        prefix, bias = names.ORIGINAL_PROJECTOR, self.config.multimodal_projector_bias
        kinds = ["weight", "bias"] if bias else ["weight"]
        linear = self.config.projector_hidden_act == "linear"
        second_bias = self.read(f"{_SECOND}.bias") if bias and linear else None
        collapsed = linear and is_identity(self.read(f"{_SECOND}.weight"), second_bias)
        first = prefix if linear else f"{prefix}0."
        for kind in kinds:
            name = f"{_FIRST}.{kind}"
            if linear and not collapsed:
                self._compose(first + kind, name, dci)
            elif dci and kind == "weight":
                self._unfold(first + kind, name, source / UNFOLDED_FILE)
            else:
                self._copy(first + kind, name)
            if linear:
                reason = "stands for the second layer that a linear projector does not have"
                self.dropped.append(Dropped(self.keys[f"{_SECOND}.{kind}"], reason if collapsed else "multiplied in"))
            else:
                self._copy(f"{prefix}2.{kind}", f"{_SECOND}.{kind}")

    def add_vision(self, vision_prefix: str | None) -> None:
        """Plans the vision tower: only a source that came from a checkpoint with one gets it back."""
        for name, key in self.keys.items():
            if not name.startswith(names.VISION):
                continue
            if vision_prefix is None:
                self.dropped.append(Dropped(key, _NO_VISION))
            else:
                self._copy(vision_prefix + name.removeprefix(names.VISION), name)

    def add_alignment(self, path: Path) -> None:
        """Plans the message passing, if there is any."""
        if not path.is_file():
            return
        expected = names.alignment_tensors(self.config.text_config.hidden_size)
        alignment = Checkpoint(path.parent, path.name)
        ours = {n: h.shape for n, h in alignment.tensors.items() if n.startswith(names.MESSAGE_PASSING)}
        wanted = {n: tuple(v.shape) for n, v in expected.items() if n.startswith(names.MESSAGE_PASSING)}
        problems = find_problems(ours, wanted)
        if problems:
            raise ValueError(
                f"convert: {path} must hold two graph convolutions as wide as the language model; "
                f"got: {summarize(problems)}. Use the file that was saved with this model."
            )
        for name, header in alignment.tensors.items():
            if name not in ours:
                self.dropped.append(Dropped(f"{path.name}: {name}", "not a weight: the state of a training run"))
                continue
            target = names.ORIGINAL_MESSAGE_PASSING + name.removeprefix(names.MESSAGE_PASSING)
            origin, dtype = f"{path.name}: {name}", self.dtype or header.dtype
            read = partial(alignment.read, name)
            self.transfers.append(Transfer(target, origin, header.shape, dtype, "copied", "1", read))

    def _compose(self, target: str, name: str, dci: bool) -> None:
        """A linear projector whose second layer was trained: the product of both."""
        if dci:
            raise ValueError(
                "convert: a linear projector behind DCI must have an identity as its second layer; got a trained one. "
                "It cannot be written in the original format."
            )

        def read() -> Tensor:
            second = self.read(f"{_SECOND}.weight").double()
            value = second @ self.read(name).double()
            return value if name.endswith("weight") else value + self.read(f"{_SECOND}.bias").double()

        self._add(target, name, "folded", read)
        self.notes.append(f"{target} is the product of two trained linear layers, to rounding")

    def _unfold(self, target: str, name: str, kept: Path) -> None:
        layers = self.config.vision_config.num_hidden_layers
        header = self.checkpoint.tensors[self.keys[name]]
        shape = (header.shape[0], header.shape[1] // layers * 3)
        if kept.is_file():
            exact = Checkpoint(kept.parent, kept.name).read("weight")
            if exact.shape == shape and torch.equal(fold_dci(exact, layers).to(header.dtype), self.read(name)):
                self._add(target, name, "unfolded", lambda: exact, shape)
                self.notes.append(f"DCI is unfolded exactly, from {kept.name}")
                return
        value = unfold_dci(self.read(name), layers)
        self._add(target, name, "unfolded", lambda: value, shape)
        self.notes.append("DCI is unfolded by arithmetic, to rounding")

    def _copy(self, target: str, name: str) -> None:
        self._add(target, name, "copied", None)

    def _add(
        self,
        target: str,
        name: str,
        how: How,
        read: Callable[[], Tensor] | None,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        key = self.keys[name]
        header = self.checkpoint.tensors[key]
        values = read or partial(self.checkpoint.read, key)
        dtype = self.dtype or header.dtype
        self.transfers.append(Transfer(target, key, shape or header.shape, dtype, how, f"0 {header.file.name}", values))


def _check_config(config: LlavaConfig) -> None:
    kinds = (config.text_config.model_type, config.vision_config.model_type)
    if kinds != ("llama", "clip_vision_model"):
        raise ValueError(
            f"convert: the original format holds a llama language model with a clip_vision_model; got {kinds[0]} with "
            f"{kinds[1]}. It has no place for other models."
        )
    rope = config.text_config.rope_parameters
    if rope.get("rope_type", "default") != "default":
        raise ValueError(
            f"convert: the original format has plain rotary embeddings; got {rope}. It has no place for others."
        )
    if config.projector_hidden_act not in ("gelu", "linear"):
        raise ValueError(
            "convert: projector_hidden_act must be gelu or linear for the original format; "
            f"got {config.projector_hidden_act}."
        )


def _read_record(source: Path) -> dict[str, Any]:
    """What an earlier conversion noted for the way back; empty without it."""
    path = source / names.REPORT_FILE
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["direction"] == "hugging-face" and isinstance(content["settings"], dict):
            return content["settings"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise ValueError(
            f"convert: {path} must be a report that this command wrote; got an error: {error}. Remove the file: "
            "settings are then derived from config.json."
        ) from error
    return {}


def _original_config(
    config: LlavaConfig,
    remembered: dict[str, Any],
    tower: str | None,
    builder: _Builder,
    tied: bool,
    dense: bool,
) -> dict[str, Any]:
    text, vision = config.text_config, config.vision_config
    size = (vision.hidden_size, vision.num_hidden_layers, vision.patch_size, vision.image_size)
    tower = tower or remembered.get("mm_vision_tower") or _KNOWN_TOWERS.get(size)
    if tower is None:
        raise ValueError(
            f"convert: the original format must name its vision tower; got none for one of width {size[0]} with "
            f"{size[1]} layers. Give what mm_vision_tower shall say with --vision-tower."
        )
    embeddings = f"{names.LANGUAGE}embed_tokens.weight"
    dtype = builder.dtype or builder.checkpoint.tensors[builder.keys[embeddings]].dtype
    markers = json.loads((builder.checkpoint.folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    defaults: dict[str, Any] = {
        "architectures": ["LlavaLlamaForCausalLM"],
        "mm_hidden_size": vision.hidden_size * (3 if dense else 1),
        "mm_use_im_start_end": "<im_start>" in {token["content"] for token in markers},
        "tune_mm_mlp_adapter": False,
        "use_mm_proj": True,
    }
    shared = {name: getattr(text, name) for name in names.SHARED_SETTINGS if getattr(text, name, None) is not None}
    theta = text.rope_parameters.get("rope_theta", 10000.0)
    derived: dict[str, Any] = {
        **shared,
        "max_position_embeddings": text.max_position_embeddings,
        "mm_vision_select_layer": -2 if dense else config.vision_feature_layer,
        "mm_vision_tower": tower,
        "model_type": "llava",
        "rope_theta": theta,
        "tie_word_embeddings": tied,
        "torch_dtype": str(dtype).removeprefix("torch."),
        "vocab_size": text.vocab_size,
        **{name: getattr(text, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
    }
    if config.vision_feature_select_strategy == "full":
        derived["mm_vision_select_feature"] = "cls_patch"
    return dict(sorted({**defaults, **remembered, **derived}.items()))
