"""Training settings: one frozen dataclass, read from a YAML file or a preset and from `key=value` pairs."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

Stage = Literal["stage1", "stage2", "vqa"]
ObjectiveName = Literal[
    "none", "extended_text", "infonce", "siglip", "optimal_transport", "vlap", "pairwise", "barycenter"
]

ALIGNED: frozenset[str] = frozenset(get_args(ObjectiveName)) - {"none", "extended_text"}
"""The objectives that add a loss on the batch's nodes."""

TINY = "tiny"
_OF_ALIGNMENTS = (
    "texts",
    "barycenter",
    "neighbours",
    "gradient",
    "relaxation",
    "margin",
    "legacy",
    "graph_scope",
    "reuse_answer_states",
)
_LEARNING_RATE = {"stage1": 2e-3, "stage2": 2e-5, "vqa": 2e-5}
_SMALL_LEARNING_RATE = {"stage1": 2e-3, "stage2": 1e-3, "vqa": 1e-3}
_LORA_LEARNING_RATE = 2e-4
_SMALL_WIDTH = 1024
_EPOCHS = {"stage1": 1.0, "stage2": 3.0, "vqa": 15.0}


def option(default: Any, text: str) -> Any:
    """Makes a field of the settings with its help text."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of one training stage. Options that are None take the stage's default (`resolved`).

    Raises:
        ValueError: A value is out of range or does not go with another; the message names the field and the rule.

    Source: defaults of ExGra-Med (arXiv:2410.02615), appendix: 2e-3 for 1 epoch, then 2e-5 for 3 epochs, alpha = 1.

    Example:
        >>> config = TrainingConfig("stage1", data="train.json", images="images", output="runs/stage1")
        >>> config.resolved().learning_rate, config.resolved().objective
        (0.002, 'none')
    """

    stage: Stage = field(
        metadata={
            "help": "stage1: trains the projector only; stage2: projector, language model and message passing; "
            "vqa: fine-tuning on questions and answers (vision is frozen in every stage)"
        }
    )
    data: Path = field(metadata={"help": "training samples: .json, .jsonl, .parquet, or WebDataset shards (.tar)"})
    images: Path | None = field(
        metadata={"help": "folder or .tar that the image names are relative to; none where the data holds the images"}
    )
    output: Path = field(metadata={"help": "folder for the trained model, its report, settings and history"})

    # Model
    model: str = option(TINY, "'tiny' (random, vocabulary from the data) or a local model folder")
    projector: Literal["keep", "mlp", "linear"] = option("keep", "exchange the projector for a fresh one of this kind")
    dense_connector: Literal["keep", "dci", "sci", "sti"] = option(
        "keep", "features of several vision layers for the projector"
    )
    attention: Literal["default", "eager", "sdpa", "flash_attention_2"] = option("default", "attention kernels")
    tiny_size: int = option(1, "width of the tiny model, in multiples of 128")

    # Data
    prompt: Literal["llava", "released", "chat_template"] = option(
        "llava", "conversation format: LLaVA-1.5's, the released recipe's, or the model's own chat template"
    )
    extender: Literal["none", "template"] = option(
        "none", "where extended answers are missing: stop if they are needed, or write them from question and answer"
    )
    data_fraction: float = option(1.0, "share of the samples to train on; smaller shares are parts of larger ones")
    streaming: bool = option(False, "read the samples while training instead of before it; needs max_steps")
    shuffle_buffer: int = option(1000, "samples to draw from while streaming")
    bad_samples: Literal["raise", "skip"] = option("raise", "stop at an unreadable image, or leave it out and count")
    allow_duplicate_ids: bool = option(False, "accept ids that occur more than once in the data")
    max_length: int = option(2048, "longest conversation or text in tokens, image patches included")
    workers: int = option(0, "processes that prepare batches; 0 prepares them in the main process")

    # Alignment
    objective: ObjectiveName | None = option(
        None, "what is learned beside the answers (default: barycenter in stage2, else none)"
    )
    alignment_weight: float = option(1.0, "weight alpha of the objective")
    texts: Literal["both", "answer", "extended"] = option("both", "the texts that are views beside the image")
    barycenter: Literal["leave_one_out", "mean"] = option(
        "leave_one_out", "each view is matched with the mean of the other views, or, as in the paper, of all views"
    )
    neighbours: int = option(5, "nearest neighbours per node")
    gradient: str = option("imle", "estimator of the gradient through the matching")
    relaxation: str = option("none", "a soft matching in place of the discrete one")
    margin: float = option(0.0, "costs of right matches are raised by this much in training, in units of cosines")
    legacy: bool = option(False, "the alignment exactly as in the released recipe, its gradient included")
    graph_scope: Literal["global", "local"] = option(
        "global", "one graph over the samples of all processes, or one graph per process"
    )
    reuse_answer_states: bool = option(
        False, "answer nodes from the main pass, which has seen the image: cheaper, but the text then leaks the image"
    )
    match_compute: bool = option(
        False, "without text passes, train longer: as many tokens as the alignment would have processed"
    )

    # Optimisation
    epochs: float | None = option(None, "passes over the data (default: stage1 1, stage2 3, vqa 15)")
    max_steps: int | None = option(None, "stop after this many optimizer steps, whatever the epochs")
    batch_size: int = option(16, "samples per process and batch")
    gradient_accumulation: int = option(1, "batches per optimizer step")
    learning_rate: float | None = option(
        None, "peak rate (default: stage1 2e-3; else 2e-5, with LoRA 2e-4, 1e-3 for models narrower than 1025)"
    )
    warmup_ratio: float = option(0.03, "share of the steps with rising learning rate; a cosine follows")
    weight_decay: float = option(0.0, "weight decay of AdamW")
    max_gradient_norm: float = option(1.0, "gradients are clipped to this norm")
    optimizer: str = option("adamw_torch", "name of the optimizer as transformers knows it")
    precision: Literal["fp32", "bf16", "fp16"] = option("fp32", "arithmetic of the model; fp16 needs a GPU")
    tf32: bool = option(True, "let NVIDIA GPUs round the factors of float32 products")
    gradient_checkpointing: bool = option(False, "recompute activations in the backward pass to save memory")
    fsdp: Literal["none", "full", "offload"] = option(
        "none", "shard parameters, gradients and optimizer over the processes; offload keeps them in host memory"
    )
    deepspeed: str | None = option(None, "DeepSpeed: zero2, zero3, or the path of a configuration file")

    # LoRA
    lora_rank: int = option(0, "rank of the adapters in the language model; 0 trains all of it")
    lora_alpha: float = option(32.0, "scale of the adapters, over their rank")
    lora_dropout: float = option(0.05, "dropout of the adapters' input")
    quantization: Literal["none", "4bit", "8bit"] = option("none", "frozen weights in few bits (QLoRA); needs LoRA")

    # Run
    seed: int = option(42, "seed of weights, data order, dropout and noise")
    logging_steps: int = option(10, "optimizer steps between two lines of the history")
    save_steps: int = option(200, "optimizer steps between two checkpoints to resume from")
    report_to: str = option("none", "trackers as transformers knows them, separated by commas: tensorboard, wandb ...")
    data_license: str = option("unknown", "licence of the data, for the model card")
    resume: bool = option(False, "continue an interrupted run in the output folder")
    overwrite: bool = option(False, "start anew in an output folder that holds an earlier run")

    def __post_init__(self) -> None:
        for name in ("data", "images", "output"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, Path(getattr(self, name)))
        for name, kind in get_type_hints(TrainingConfig).items():
            choices = choices_of(kind)
            if choices and getattr(self, name) not in (*choices, *([None] if is_optional(kind) else [])):
                self._refuse(name, f"be one of {', '.join(choices)}", "Choose one of them.")
        self._check_numbers()
        self._check_combinations()

    def _check_numbers(self) -> None:
        positive = ("neighbours", "batch_size", "gradient_accumulation", "max_length", "logging_steps", "save_steps")
        for name in (*positive, "shuffle_buffer", "tiny_size"):
            if getattr(self, name) < 1:
                self._refuse(name, "be at least 1", "Use a positive whole number.")
        for name in ("epochs", "max_steps", "learning_rate", "lora_alpha", "max_gradient_norm"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                self._refuse(name, "be positive and finite", "Leave it out for the default.")
        for name in ("alignment_weight", "margin", "weight_decay"):
            if not (getattr(self, name) >= 0 and math.isfinite(getattr(self, name))):
                self._refuse(name, "be 0 or more and finite", "0 switches it off.")
        for name in ("warmup_ratio", "lora_dropout"):
            if not 0 <= getattr(self, name) < 1:
                self._refuse(name, "lie in [0, 1)", "Leave it out for the default.")
        if not 0 < self.data_fraction <= 1:
            self._refuse("data_fraction", "lie in (0, 1]", "0.1 trains on a tenth of the samples.")
        for name in ("workers", "seed", "lora_rank"):
            if getattr(self, name) < 0:
                self._refuse(name, "be 0 or more", "Use 0 or a positive whole number.")

    def _check_combinations(self) -> None:
        rules = (
            ("resume", self.resume and self.overwrite, "not be combined with overwrite", "Choose one of the two."),
            (
                "streaming",
                self.streaming and not self.max_steps,
                "come with max_steps",
                "A stream has no length.",
            ),
            (
                "streaming",
                self.streaming and self.model == TINY,
                "come with a model folder",
                "Tiny learns words first.",
            ),
            (
                "streaming",
                self.streaming and self.match_compute,
                "not be combined with match_compute",
                "Set max_steps.",
            ),
            ("streaming", self.streaming and self.data_fraction < 1, "read all of the data", "Set data_fraction=1."),
            (
                "quantization",
                self.quantization != "none" and not self.lora_rank,
                "come with lora_rank",
                "Frozen weights alone cannot be trained.",
            ),
            (
                "lora_rank",
                self.lora_rank > 0 and self.stage == "stage1",
                "be 0 in stage1",
                "Stage 1 trains the projector alone: there is nothing to adapt.",
            ),
            (
                "lora_rank",
                self.lora_rank > 0 and (self.dense_connector != "keep" or self.projector != "keep"),
                "be 0 where the projector is exchanged",
                "Exchange it in stage 1, and put adapters on the result.",
            ),
            (
                "deepspeed",
                self.deepspeed == "zero3" and self.model == TINY,
                "start from a model folder with zero3",
                "Use zero2, or train stage 1 without it.",
            ),
            ("deepspeed", bool(self.deepspeed) and self.fsdp != "none", "not be combined with fsdp", "Choose one."),
            (
                "reuse_answer_states",
                self.reuse_answer_states and (self.legacy or self.texts == "extended"),
                "not be combined with legacy or texts=extended",
                "Answers are not read alone there, or not at all.",
            ),
            (
                "match_compute",
                self.match_compute and self.objective in ALIGNED,
                "come with an objective without text passes",
                "Set objective=none or extended_text.",
            ),
        )
        for name, broken, rule, cure in rules:
            if broken:
                self._refuse(name, rule, cure)

    @property
    def is_aligned(self) -> bool:
        """Whether a loss on the batch's nodes is added."""
        return self.objective in ALIGNED and self.alignment_weight > 0

    @property
    def needs_extended_answers(self) -> bool:
        """Whether every sample must have extended answers."""
        return (self.is_aligned and self.texts != "answer") or self.objective == "extended_text"

    def resolved(self) -> TrainingConfig:
        """Returns the same settings with the stage's defaults in place of None (`max_steps` may stay None)."""
        rates = _SMALL_LEARNING_RATE if _is_small(self.model) else _LEARNING_RATE
        rate = rates[self.stage]
        if self.lora_rank and rate < _LORA_LEARNING_RATE:
            rate = _LORA_LEARNING_RATE
        objective = self.objective or ("barycenter" if self.stage == "stage2" and not self.match_compute else "none")
        if objective not in ALIGNED:
            self._refuse_what_only_an_alignment_has(objective)
        return dataclasses.replace(
            self,
            objective=objective,
            epochs=_EPOCHS[self.stage] if self.epochs is None else self.epochs,
            learning_rate=rate if self.learning_rate is None else self.learning_rate,
        )

    def _refuse_what_only_an_alignment_has(self, objective: str) -> None:
        """A setting without any effect is a mistake of whoever wrote it."""
        changed = changed_settings(self)
        for name in _OF_ALIGNMENTS:
            if name in changed:
                self._refuse(
                    name,
                    f"be left out with objective={objective}, which has no alignment",
                    "Leave it out, or choose an objective with one.",
                )

    def to_json(self) -> dict[str, Any]:
        """Returns the settings as plain JSON values."""
        values = dataclasses.asdict(self)
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}

    def _refuse(self, name: str, rule: str, cure: str) -> None:
        raise ValueError(f"TrainingConfig: {name} must {rule}; got {getattr(self, name)!r}. {cure}")


def changed_settings(config: TrainingConfig) -> dict[str, Any]:
    """Returns the settings that differ from the defaults, as plain JSON values."""
    defaults = {each.name: each.default for each in dataclasses.fields(TrainingConfig)}
    return {name: value for name, value in config.to_json().items() if value != defaults[name]}


def is_optional(kind: Any) -> bool:
    """Whether a field's type admits None."""
    return isinstance(kind, UnionType) or type(None) in get_args(kind)


def choices_of(kind: Any) -> tuple[str, ...]:
    """The allowed texts of a field, if it is a choice."""
    for each in (kind, *get_args(kind)):
        if get_origin(each) is Literal:
            return get_args(each)
    return ()


def _is_small(model: str) -> bool:
    """Whether a model is the tiny one or a trained descendant of it, for which 2e-5 would be far too slow."""
    if model == TINY:
        return True
    try:
        folder = Path(model)
        if not (folder / "config.json").is_file():
            # Adapters: the folder of the model that they belong to.
            adapter = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
            folder /= adapter["base_model_name_or_path"]
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return bool(config["text_config"]["hidden_size"] <= _SMALL_WIDTH)
    except (OSError, ValueError, KeyError, TypeError):
        return False  # a folder that cannot be loaded is reported where it is loaded
