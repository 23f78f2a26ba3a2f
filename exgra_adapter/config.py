"""Training settings: one frozen dataclass whose fields are the options of the command line."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

_LEARNING_RATE = {"align": 2e-3, "instruct": 2e-5, "vqa": 2e-5}
_SMALL_LEARNING_RATE = {"align": 2e-3, "instruct": 1e-3, "vqa": 1e-3}
_SMALL_WIDTH = 512
_EPOCHS = {"align": 1.0, "instruct": 3.0, "vqa": 15.0}


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of one training stage. Options that are None take the stage's default (`resolved`).

    Raises:
        ValueError: A value is out of range; the message names the field and the rule.

    Source: defaults of ExGra-Med (arXiv:2410.02615), appendix: 2e-3 for 1 epoch, then 2e-5 for 3 epochs, alpha = 1.

    Example:
        >>> config = TrainingConfig("align", data="train.json", images="images", output="runs/stage1")
        >>> config.resolved().learning_rate, config.resolved().alignment_weight
        (0.002, 0.0)
    """

    stage: Literal["align", "instruct", "vqa"] = field(
        metadata=_help(
            "align: stage 1, trains the projector only; instruct: stage 2, projector, language model and message "
            "passing; vqa: fine-tuning on questions and answers (vision is frozen in every stage)"
        )
    )
    data: Path = field(metadata=_help("JSON file with the training samples"))
    images: Path = field(metadata=_help("folder that the image names in the data are relative to"))
    output: Path = field(metadata=_help("folder for the trained model, its settings and its history"))
    model: str = field(
        default="tiny",
        metadata=_help("'tiny' (random, 1 M parameters, vocabulary from the data) or a local model folder"),
    )
    alignment_weight: float | None = field(
        default=None,
        metadata=_help("weight of the alignment loss, 0 switches it off (default: 1 in stage instruct, else 0)"),
    )
    barycenter: Literal["leave_one_out", "mean"] = field(
        default="leave_one_out",
        metadata=_help("each view is matched with the mean of the other views, or, as in the paper, of all views"),
    )
    neighbours: int = field(default=5, metadata=_help("neighbours k of every node in its graph"))
    legacy: bool = field(
        default=False, metadata=_help("the alignment exactly as in the released recipe, for comparison")
    )
    extender: Literal["none", "template"] = field(
        default="none",
        metadata=_help(
            "where extended answers are missing: none stops with an error if the alignment needs them; "
            "template writes them from question and answer"
        ),
    )
    epochs: float | None = field(
        default=None, metadata=_help("passes over the data (default: align 1, instruct 3, vqa 15)")
    )
    max_steps: int | None = field(
        default=None, metadata=_help("stop after this many optimizer steps, whatever the epochs")
    )
    batch_size: int = field(
        default=16, metadata=_help("samples per step and device: the alignment's graphs have as many nodes")
    )
    gradient_accumulation: int = field(default=1, metadata=_help("batches per optimizer step"))
    learning_rate: float | None = field(
        default=None,
        metadata=_help(
            "peak learning rate (default: align 2e-3; instruct and vqa 2e-5, or 1e-3 for models narrower than 512)"
        ),
    )
    warmup_ratio: float = field(
        default=0.03, metadata=_help("share of the steps with rising learning rate; a cosine follows")
    )
    max_length: int = field(default=2048, metadata=_help("longest conversation in tokens, image patches included"))
    precision: Literal["fp32", "bf16", "fp16"] = field(
        default="fp32", metadata=_help("arithmetic of the model; fp16 needs a GPU")
    )
    seed: int = field(default=42, metadata=_help("seed of weights, data order, dropout and noise"))
    bad_images: Literal["raise", "skip"] = field(
        default="raise", metadata=_help("stop at an unreadable image, or leave its samples out and count")
    )
    allow_duplicate_ids: bool = field(default=False, metadata=_help("accept ids that occur more than once in the data"))
    workers: int = field(
        default=0, metadata=_help("processes that prepare batches; 0 prepares them in the main process")
    )
    logging_steps: int = field(default=10, metadata=_help("optimizer steps between two lines of the history"))
    save_steps: int = field(default=200, metadata=_help("optimizer steps between two checkpoints to resume from"))
    resume: bool = field(default=False, metadata=_help("continue an interrupted run in the output folder"))
    overwrite: bool = field(default=False, metadata=_help("start anew in an output folder that holds an earlier run"))

    def __post_init__(self) -> None:
        for name in ("data", "images", "output"):
            object.__setattr__(self, name, Path(getattr(self, name)))
        for name, kind in get_type_hints(TrainingConfig).items():
            choices = get_args(kind)
            if choices and isinstance(choices[0], str) and getattr(self, name) not in choices:
                self._refuse(name, f"be one of {', '.join(choices)}", "Choose one of them.")
        for name in ("neighbours", "batch_size", "gradient_accumulation", "max_length", "logging_steps", "save_steps"):
            if getattr(self, name) < 1:
                self._refuse(name, "be at least 1", "Use a positive whole number.")
        for name in ("epochs", "max_steps", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                self._refuse(name, "be positive and finite", "Leave it out for the stage's default.")
        if self.alignment_weight is not None and not (
            self.alignment_weight >= 0 and math.isfinite(self.alignment_weight)
        ):
            self._refuse("alignment_weight", "be 0 or more and finite", "Use 0 to switch the alignment off.")
        if not 0 <= self.warmup_ratio < 1:
            self._refuse("warmup_ratio", "lie in [0, 1)", "0.03 is customary.")
        for name in ("workers", "seed"):
            if getattr(self, name) < 0:
                self._refuse(name, "be 0 or more", "Use 0 or a positive whole number.")
        if self.resume and self.overwrite:
            self._refuse("resume", "not be combined with overwrite", "Choose one of the two.")

    def resolved(self) -> TrainingConfig:
        """Returns the same settings with the stage's defaults in place of None (`max_steps` may stay None)."""
        rates = _SMALL_LEARNING_RATE if _is_small(self.model) else _LEARNING_RATE
        return dataclasses.replace(
            self,
            alignment_weight=_first(self.alignment_weight, 1.0 if self.stage == "instruct" else 0.0),
            epochs=_first(self.epochs, _EPOCHS[self.stage]),
            learning_rate=_first(self.learning_rate, rates[self.stage]),
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the settings as plain JSON values."""
        values = dataclasses.asdict(self)
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}

    def _refuse(self, name: str, rule: str, cure: str) -> None:
        raise ValueError(f"TrainingConfig: {name} must {rule}; got {getattr(self, name)!r}. {cure}")


def _first(value: float | None, default: float) -> float:
    return default if value is None else value


def _is_small(model: str) -> bool:
    """Whether a model is the tiny one or a trained descendant of it, for which 2e-5 would be far too slow."""
    if model == "tiny":
        return True
    try:
        config = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
        return bool(config["text_config"]["hidden_size"] <= _SMALL_WIDTH)
    except (OSError, ValueError, KeyError, TypeError):
        return False  # a folder that cannot be loaded is reported where it is loaded
