"""What a training run says about its gradients and its time, beside the losses."""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from torch.nn.utils import get_total_norm
from transformers import TrainerCallback

from exgra_adapter.clock import PhaseClock
from exgra_adapter.models.prepare import PROJECTOR_MARKS

_PARTS = (
    ("alignment", ("alignment.",)),
    ("projector", PROJECTOR_MARKS),
)
_REST = "language_model"


class StepObserver(TrainerCallback):
    """Times the optimizer and measures the gradient of each part of the model before steps that are logged.

    A step that is saved is logged: a resumed run begins its averages where the checkpoint was written.

    Args:
        clock: Receives phase "optimizer".

    Attributes:
        skipped: Samples that this process left out since the run began; before a resume, those of all processes are the
            main one's.
    """

    def __init__(self, clock: PhaseClock) -> None:
        self.clock = clock
        self.skipped = 0
        self._norms: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Goes on counting where the checkpoint was written."""
        counts = [int(entry.get("skipped", 0)) for entry in state.log_history]
        self.skipped = max(counts, default=0) if state.is_world_process_zero else 0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measures gradients, already clipped, and starts the clock."""
        step = state.global_step + 1
        saved = args.save_strategy == "steps" and state.save_steps > 0 and step % state.save_steps == 0
        if saved or step % state.logging_steps == 0 or step == state.max_steps:
            self._norms = part_norms(kwargs["model"])
        self.clock.start("optimizer")

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stops the clock."""
        self.clock.stop()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Logs a step that is saved."""
        if control.should_save and args.logging_strategy == "steps":
            control.should_log = True

    def gradient_norms(self, total: float) -> dict[str, float]:
        """Returns `gradient_norm_<part>` as they were before clipping, when the norm of all was `total`."""
        clipped = math.sqrt(sum(value**2 for value in self._norms.values()))
        factor = total / clipped if clipped > 0 else 1.0
        return {f"gradient_norm_{part}": value * factor for part, value in self._norms.items()}


def part_norms(model: nn.Module) -> dict[str, float]:
    """Returns the Euclidean norm of the gradients of each part of a model that has any: alignment, projector, rest."""
    found: dict[str, list[Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            part = next((part for part, marks in _PARTS if any(mark in name for mark in marks)), _REST)
            found.setdefault(part, []).append(parameter.grad)
    norms = {part: get_total_norm(gradients) for part, gradients in found.items()}
    return {part: float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm) for part, norm in norms.items()}
