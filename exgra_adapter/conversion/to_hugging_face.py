"""From the original format to Hugging Face `LlavaForConditionalGeneration`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, GenerationConfig, LlamaConfig, LlavaConfig, LlavaProcessor

from exgra_adapter.alignment import ALIGNMENT_FILE
from exgra_adapter.conversion import names
from exgra_adapter.conversion.checkpoint import Checkpoint
from exgra_adapter.conversion.plan import Change, Dropped, How, Plan, Transfer, find_problems, summarize
from exgra_adapter.conversion.projector import UNFOLDED_FILE, DenseConnector, feature_layers, fold_dci
from exgra_adapter.conversion.tokenizer import IMAGE_PATCH, ImageTokenizer, keep_sentencepiece, open_tokenizer
from exgra_adapter.conversion.vision import POSITION_REASON, VisionTower, is_position_ids, open_vision_tower, tower_name

_FIRST, _SECOND = f"{names.PROJECTOR}linear_1", f"{names.PROJECTOR}linear_2"


def plan_to_hugging_face(source: Path, config: dict[str, Any], options: names.Options) -> Plan:
    """Plans a conversion; reads headers only.

    Args:
        source: A checkpoint in the original format.
        config: Its `config.json`.
        options: What the user chose.

    Returns:
        The plan; every tensor of a `LlavaForConditionalGeneration` of the new configuration is in it, in its shape.

    Raises:
        ValueError: The source is not complete, does not fit its own configuration, or something must be decided first.
    """
    tower = open_vision_tower(_tower_folder(source, config, options))
    tokenizer = open_tokenizer(source)
    builder = _Builder(Checkpoint(source), tower, options.dtype)
    builder.sort()
    connector = _decide_connector(builder.projector_width(), tower.config.hidden_size, options.dense_connector)
    layer = _feature_layer(config, connector, tower.config.num_hidden_layers)
    llava = _llava_config(config, builder, tokenizer, tower.config, layer)
    builder.add_all(llava, connector, bool(config.get("tie_word_embeddings")))
    targets = {transfer.target: transfer.shape for transfer in builder.transfers if transfer.file is None}
    problems = find_problems(targets, names.model_shapes(llava)) + [f"{name} is unknown" for name in builder.unknown]
    if problems:
        raise ValueError(
            f"convert: the tensors in {source} must be those that its config.json describes; got: "
            f"{summarize(problems)}. Use the config.json that belongs to these weights."
        )
    processor = LlavaProcessor(
        image_processor=tower.image_processor,
        tokenizer=tokenizer.tokenizer,
        patch_size=tower.config.patch_size,
        vision_feature_select_strategy=llava.vision_feature_select_strategy,
        image_token=IMAGE_PATCH,
        num_additional_image_tokens=1,
    )

    def write_companions(folder: Path) -> None:
        processor.save_pretrained(folder)
        GenerationConfig(**tokenizer.special_ids).save_pretrained(folder)
        keep_sentencepiece(source, folder)
        llava.save_pretrained(folder)

    return Plan(
        "hugging-face",
        builder.transfers,
        [*builder.dropped, *tower.dropped],
        _changes(config, llava),
        [*builder.notes, *tower.notes, *tokenizer.notes, *_setting_notes(config, tokenizer)],
        write_companions,
        {"dense_connector": connector, "original_config": config, "vision_prefix": builder.vision_prefix},
    )


@dataclass
class _Builder:
    """Collects the transfers of one conversion."""

    checkpoint: Checkpoint
    tower: VisionTower
    dtype: torch.dtype | None
    transfers: list[Transfer] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    language: dict[str, str] = field(default_factory=dict)
    projector: dict[str, str] = field(default_factory=dict)
    vision: dict[str, str] = field(default_factory=dict)
    message_passing: dict[str, str] = field(default_factory=dict)
    vision_prefix: str | None = None

    def sort(self) -> None:
        """Sorts the source's tensors by what they belong to: name in the output to name in the source."""
        for key in self.checkpoint.tensors:
            inner = tower_name(key)
            if key.endswith(names.ROTARY):
                self.dropped.append(Dropped(key, names.ROTARY_REASON))
            elif inner is not None and is_position_ids(inner):
                self.dropped.append(Dropped(key, POSITION_REASON))
            elif inner is not None:
                self.vision[inner] = key
                self.vision_prefix = key[: -len(inner)]
            elif key == names.ORIGINAL_HEAD:
                self.language[names.HEAD] = key
            elif names.ORIGINAL_LANGUAGE.match(key):
                self.language[names.ORIGINAL_LANGUAGE.sub(names.LANGUAGE, key)] = key
            elif key.startswith(names.ORIGINAL_PROJECTOR):
                self.projector[key.removeprefix(names.ORIGINAL_PROJECTOR)] = key
            elif key.startswith(names.ORIGINAL_MESSAGE_PASSING):
                target = names.MESSAGE_PASSING + key.removeprefix(names.ORIGINAL_MESSAGE_PASSING)
                self.message_passing[target] = key
            else:
                self.unknown.append(key)

    @property
    def linear(self) -> bool:
        """Whether the projector is one layer."""
        return "weight" in self.projector

    def projector_width(self) -> int:
        """Number of columns of the projector's first layer."""
        key = self.projector.get("weight", self.projector.get("0.weight"))
        shape = self.checkpoint.tensors[key].shape if key else ()
        if len(shape) != 2:
            raise ValueError(
                f"convert: {self.checkpoint.folder} must hold the projector, model.mm_projector.0.weight or "
                f"model.mm_projector.weight, as a matrix; got {shape or 'none'}. "
                "Convert a checkpoint that was trained with images."
            )
        return shape[1]

    def add_all(self, config: LlavaConfig, connector: DenseConnector, tied: bool) -> None:
        """Plans every tensor of the output."""
        for target, key in self.language.items():
            self._copy(target, key)
        embeddings = self.language.get(f"{names.LANGUAGE}embed_tokens.weight")
        if names.HEAD not in self.language and embeddings and tied:
            self._copy(names.HEAD, embeddings)
            self.notes.append("the source ties its head to its embeddings: the output holds a copy, untied")
        self._add_projector(config, connector)
        if self.vision:
            for inner, key in self.vision.items():
                self._copy(names.VISION + inner, key)
            own = "the checkpoint holds its own vision tower"
            self.dropped += [Dropped(key, own) for key in self.tower.names.values()]
            self.notes.append(f"{own}: the folder gives configuration and image processor only")
        else:
            for inner, key in self.tower.names.items():
                self._copy(names.VISION + inner, key, self.tower.checkpoint)
        if self.message_passing:
            self._add_alignment(config.text_config.hidden_size)

    def _add_projector(self, config: LlavaConfig, connector: DenseConnector) -> None:
        first, second = ("", None) if self.linear else ("0.", "2.")
        for part, key in self.projector.items():
            name, _, kind = part.rpartition(".")
            layer = {first.rstrip("."): _FIRST, (second or "-").rstrip("."): _SECOND}.get(name)
            if layer is None or kind not in {"weight", "bias"}:
                self.unknown.append(key)
            elif connector == "dci" and layer == _FIRST and kind == "weight":
                self._fold(f"{layer}.weight", key, config.vision_config.num_hidden_layers)
            else:
                self._copy(f"{layer}.{kind}", key)
        if self.linear:
            width, dtype = config.text_config.hidden_size, self._dtype(self.projector["weight"])
            self._create(f"{_SECOND}.weight", "identity", (width, width), dtype, partial(torch.eye, width))
            if config.multimodal_projector_bias:
                self._create(f"{_SECOND}.bias", "zeros", (width,), dtype, partial(torch.zeros, width))

    def _fold(self, target: str, key: str, layers: int) -> None:
        rows, columns = self.checkpoint.tensors[key].shape
        shape = (rows, columns // 3 * layers)
        self._add(target, key, shape, "folded", lambda: fold_dci(self.checkpoint.read(key), layers))
        # Dividing by half the number of layers rounds; the original bits stay available for the way back.
        self._copy("weight", key, file=UNFOLDED_FILE)
        self.notes.append(f"DCI is folded into the first layer of the projector; {UNFOLDED_FILE} keeps its exact form")

    def _add_alignment(self, dim: int) -> None:
        expected = names.alignment_tensors(dim)
        for target, key in self.message_passing.items():
            self._copy(target, key, file=ALIGNMENT_FILE)
        for name, value in expected.items():
            if not name.startswith(names.MESSAGE_PASSING):
                zeros = partial(torch.zeros, tuple(value.shape), dtype=value.dtype)
                self._create(name, "zeros", tuple(value.shape), value.dtype, zeros, ALIGNMENT_FILE)
        found = {transfer.target: transfer.shape for transfer in self.transfers if transfer.file == ALIGNMENT_FILE}
        problems = find_problems(found, {name: tuple(value.shape) for name, value in expected.items()})
        if problems:
            raise ValueError(
                "convert: message passing must be two graph convolutions as wide as the language model; "
                f"got: {summarize(problems)}. Give a complete checkpoint."
            )

    def _dtype(self, key: str, checkpoint: Checkpoint | None = None) -> torch.dtype:
        own = (checkpoint or self.checkpoint).tensors[key].dtype
        if not own.is_floating_point or own.itemsize < 2:
            raise ValueError(
                f"convert: {key} must have a floating-point type of at least 16 bits; got {own}. "
                "Convert an unquantized checkpoint."
            )
        return self.dtype or own

    def _copy(self, target: str, key: str, checkpoint: Checkpoint | None = None, file: str | None = None) -> None:
        shape = (checkpoint or self.checkpoint).tensors[key].shape
        self._add(target, key, shape, "copied", None, checkpoint, file)

    def _add(
        self,
        target: str,
        key: str,
        shape: tuple[int, ...],
        how: How,
        read: Callable[[], Tensor] | None = None,
        checkpoint: Checkpoint | None = None,
        file: str | None = None,
    ) -> None:
        origin = checkpoint or self.checkpoint
        order = f"{int(origin is not self.checkpoint)} {origin.tensors[key].file.name}"
        values = read or partial(origin.read, key)
        self.transfers.append(Transfer(target, key, shape, self._dtype(key, origin), how, order, values, file))

    def _create(
        self,
        target: str,
        what: str,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        read: Callable[[], Tensor],
        file: str | None = None,
    ) -> None:
        self.transfers.append(Transfer(target, what, shape, dtype, "created", "2", read, file))

    def language_dtype(self) -> torch.dtype:
        """The type of the language model."""
        return self._dtype(self.language[f"{names.LANGUAGE}embed_tokens.weight"])


def _tower_folder(source: Path, config: dict[str, Any], options: names.Options) -> Path:
    named = config.get("mm_vision_tower")
    if options.vision_tower is not None:
        return Path(options.vision_tower)
    if isinstance(named, str) and Path(named).is_absolute() and Path(named).is_dir():
        return Path(named)
    raise ValueError(
        f"convert: {source} needs a vision tower; got none: the original format names it only, here {named!r}. "
        "Download that CLIP model and give its folder with --vision-tower."
    )


def _decide_connector(width: int, vision_width: int, chosen: DenseConnector | None) -> DenseConnector:
    """The kind of dense connector is not stored; the projector's width says only whether there is one."""
    if width not in (vision_width, 3 * vision_width):
        raise ValueError(
            f"convert: the projector must take {vision_width} features (as wide as the vision tower) or "
            f"{3 * vision_width} (dense connector); got {width}. Give the right tower with --vision-tower."
        )
    dense = width == 3 * vision_width
    if dense and chosen not in ("dci", "sci"):
        raise ValueError(
            f"convert: the projector takes {width} features, three times the tower's {vision_width}, so it was trained "
            f"with a dense connector, and --dense-connector must say which; got {chosen}. Choose dci or sci."
        )
    if not dense and chosen in ("dci", "sci"):
        raise ValueError(
            f"convert: --dense-connector {chosen} needs a projector of {3 * vision_width} input features; got {width}. "
            "Leave the option out."
        )
    return chosen if dense and chosen else "none"


def _feature_layer(config: dict[str, Any], connector: DenseConnector, layers: int) -> int | list[int]:
    layer = config.get("mm_vision_select_layer", -2)
    if connector == "none":
        return int(layer)
    if layer != -2:
        raise ValueError(
            f"convert: a dense connector builds on layer -2; got mm_vision_select_layer {layer}. Correct config.json."
        )
    return feature_layers(connector, layers)


def _llava_config(
    config: dict[str, Any],
    builder: _Builder,
    tokenizer: ImageTokenizer,
    vision: CLIPVisionConfig,
    layer: int | list[int],
) -> LlavaConfig:
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    bad = [name for name in sizes if not isinstance(config.get(name), int) or config[name] < 1]
    if bad:
        raise ValueError(
            f"convert: config.json must give {bad[0]} as a positive number; got {config.get(bad[0])!r}. "
            "Use the config.json that belongs to these weights."
        )
    embeddings = builder.language.get(f"{names.LANGUAGE}embed_tokens.weight")
    if embeddings is None:
        raise ValueError(
            f"convert: {builder.checkpoint.folder} must hold model.embed_tokens.weight; got none. "
            "Give a whole checkpoint, not a projector or adapter alone."
        )
    rows = builder.checkpoint.tensors[embeddings].shape[0]
    tokens = max(tokenizer.tokenizer.get_vocab().values()) + 1
    if tokens > rows:
        raise ValueError(
            f"convert: every one of the tokenizer's {tokens} tokens must have an embedding; got {rows} rows in "
            "model.embed_tokens.weight. Give the tokenizer that belongs to these weights."
        )
    length = config.get("max_position_embeddings", config.get("max_sequence_length", 2048))
    rope = {name: config[name] for name in ("rope_theta", "rope_scaling") if config.get(name) is not None}
    text = LlamaConfig(
        **{name: config[name] for name in names.SHARED_SETTINGS if config.get(name) is not None},
        **rope,
        max_position_embeddings=length,
        vocab_size=rows,
        tie_word_embeddings=False,
        **tokenizer.special_ids,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.image_patch,
        image_seq_length=(vision.image_size // vision.patch_size) ** 2
        + int(config.get("mm_vision_select_feature") == "cls_patch"),
        projector_hidden_act="linear" if builder.linear else "gelu",
        vision_feature_select_strategy="full" if config.get("mm_vision_select_feature") == "cls_patch" else "default",
        vision_feature_layer=layer,
        multimodal_projector_bias=any(part.endswith("bias") for part in builder.projector),
        tie_word_embeddings=False,
        architectures=["LlavaForConditionalGeneration"],
        dtype=str(builder.language_dtype()).removeprefix("torch."),
        **tokenizer.special_ids,
    )


def _changes(config: dict[str, Any], llava: LlavaConfig) -> list[Change]:
    text = llava.text_config
    after = {name: getattr(text, name) for name in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")}
    after["tie_word_embeddings"] = False
    return [
        Change(name, config.get(name), value)
        for name, value in after.items()
        if config.get(name, False if name == "tie_word_embeddings" else None) != value
    ]


def _setting_notes(config: dict[str, Any], tokenizer: ImageTokenizer) -> list[str]:
    notes = []
    if config.get("image_aspect_ratio") == "pad":
        notes.append("the source pads images to squares; the image processor of the output crops them")
    if config.get("mm_use_im_start_end") and not tokenizer.markers:
        notes.append("the source sets mm_use_im_start_end, but its tokenizer has no <im_start> and <im_end>")
    return notes
