"""One point of the overhead study, in a process that does nothing else: time of a step by phase, or its peak memory.

python -m benchmarks.studies.overhead_point time --samples 16 --size 2 --threads 2 --seconds 15
python -m benchmarks.studies.overhead_point memory --arm barycenter --samples 16 --size 2 --threads 2
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import graphmatch as gm
from benchmarks.studies.overhead_figures import ALIGNED, ALONE, CONTRAST
from benchmarks.training_cases import CASES, StepRunner, drawn_data
from exgra_adapter.clock import PhaseClock
from exgra_adapter.objectives import BatchViews, ObjectiveResult

ARMS = (ALONE, CONTRAST, ALIGNED)
TEXT_BACKWARD, GRAPH_BACKWARD, SOLVE_BACKWARD = "text backward", "graph backward", "solve backward"
_WARMUP, _FEWEST, _MOST = 2, 5, 60
_QUARTILES = (0.25, 0.5, 0.75)


class _TimedEstimator:
    """A gradient estimator whose backward pass is a phase of its own."""

    def __init__(self, estimator: gm.GradientEstimator, clock: PhaseClock) -> None:
        self.estimator, self.clock = estimator, clock

    def forward(self, *arguments: Any) -> Any:
        """Returns what the estimator does; the matching layer is timed already."""
        return self.estimator.forward(*arguments)

    def backward(self, *arguments: Any) -> Any:
        """Returns the estimator's gradients."""
        with self.clock.phase(SOLVE_BACKWARD):
            return self.estimator.backward(*arguments)


class PhasedRunner(StepRunner):
    """A training step whose backward pass is timed by part.

    Autograd runs what was computed last first: the objective, then the text pass, then the main pass. Hooks on the
    tensors between them move the clock.
    """

    def __init__(self, arm: str, samples: int, size: int) -> None:
        super().__init__(CASES[arm], samples, size)
        self._part = 0
        alignment = self.trainer.alignment
        if alignment is not None:
            self.trainer.model.register_forward_hook(self._watch_main_pass)
            alignment.objective.register_forward_hook(self._watch_objective)
            for layer in alignment.objective.modules():
                if isinstance(layer, gm.MatchingLayer):
                    layer.gradient = _TimedEstimator(layer.gradient, self.trainer.clock)

    def timed_step(self) -> dict[str, float]:
        """Takes a step and returns the seconds of its phases."""
        self._part = 0
        self.step()
        return self.trainer.clock.take()

    def _watch_objective(self, module: nn.Module, inputs: tuple[BatchViews], output: ObjectiveResult) -> None:
        _on_gradient(output.loss, lambda: self._move(1, GRAPH_BACKWARD))
        for view in (inputs[0].answer, inputs[0].extended):
            if view is not None:
                _on_gradient(view, lambda: self._move(2, TEXT_BACKWARD))

    def _watch_main_pass(self, module: nn.Module, inputs: Any, output: Any) -> None:
        _on_gradient(output.loss, lambda: self._move(3, None))

    def _move(self, part: int, phase: str | None) -> None:
        """Ends the part of the backward pass that is being timed and begins the next one, once per step."""
        if part <= self._part:
            return
        clock = self.trainer.clock
        if self._part:
            clock.stop()
        if phase is not None:
            clock.start(phase)
        self._part = part


def _on_gradient(tensor: Tensor, react: Callable[[], None]) -> None:
    """Calls back when the gradient of a tensor is known, before that of anything it was computed from."""
    if tensor.requires_grad:
        tensor.register_hook(lambda gradient: react())


def measure_time(samples: int, size: int, seconds: float) -> dict[str, Any]:
    """Times the steps of all arms in turns.

    Returns:
        phases: for each arm the median seconds of each phase; alone: median seconds of a step without alignment;
        overhead, contrast: quartiles of (aligned, or InfoNCE step) / (step beside it without) - 1; rounds; tokens of
        the main and of the text pass; width and parameters of the model; load of the machine.
    """
    runners = {arm: PhasedRunner(arm, samples, size) for arm in ARMS}
    for _ in range(_WARMUP):
        round_of = {arm: runner.timed_step() for arm, runner in runners.items()}
    together = sum(sum(phases.values()) for phases in round_of.values())
    rounds = min(max(int(seconds / together), _FEWEST), _MOST)
    steps: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    for _ in range(rounds):
        for arm, runner in runners.items():
            steps[arm].append(runner.timed_step())
    totals = {arm: np.array([sum(phases.values()) for phases in rows]) for arm, rows in steps.items()}
    main, texts = runners[ALIGNED].tokens
    return {
        "phases": {arm: _medians(rows) for arm, rows in steps.items()},
        "alone": float(np.median(totals[ALONE])),
        "overhead": np.quantile(totals[ALIGNED] / totals[ALONE] - 1, _QUARTILES).tolist(),
        "contrast": np.quantile(totals[CONTRAST] / totals[ALONE] - 1, _QUARTILES).tolist(),
        "rounds": rounds,
        "tokens": {"main": main, "text": texts},
        "width": runners[ALONE].trainer.model.config.text_config.hidden_size,
        "parameters": runners[ALONE].trainer.model.num_parameters(),
        "load": round(os.getloadavg()[0], 2),
    }


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    phases = dict.fromkeys(phase for row in rows for phase in row)
    return {phase: float(np.median([row.get(phase, 0.0) for row in rows])) for phase in phases}


def measure_memory(arm: str, samples: int, size: int) -> dict[str, Any]:
    """Returns the bytes by which resident memory grew at most: model, batches, gradients, optimizer and three steps."""
    drawn_data()
    ctypes.CDLL(None).malloc_trim(0)  # what is free would be used first, and not show
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak so far
    before = _resident("VmRSS")
    runner = PhasedRunner(arm, samples, size)
    for _ in range(_WARMUP + 1):
        runner.step()
    return {"peak_bytes": _resident("VmHWM") - before}


def _resident(entry: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(entry + ":"))


def main() -> int:
    """Measures and prints one JSON object; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", choices=("time", "memory"))
    parser.add_argument("--arm", choices=ARMS, default=ALONE)
    parser.add_argument("--samples", type=int, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure == "time":
        found = measure_time(options.samples, options.size, options.seconds)
    else:
        found = measure_memory(options.arm, options.samples, options.size)
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
