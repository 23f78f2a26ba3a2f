"""A step of stage 2 with each objective, on the tiny model's larger sibling: time against tokens, one thread."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.timing import torch_threads
from benchmarks.training_cases import CASES, StepRunner

_THREADS = 1
_SIZE = 3
_SAMPLES = 16


@pytest.fixture(scope="module")
def baseline() -> StepRunner:
    """The step that all others are compared with, timed again beside each of them."""
    return StepRunner(CASES["autoregressive"], _SAMPLES, _SIZE)


@pytest.mark.benchmark(group="training-step")
@pytest.mark.parametrize("name", [name for name in CASES if name != "autoregressive"])
def test_training_step(benchmark: Any, baseline: StepRunner, name: str):
    with torch_threads(_THREADS):
        runner = StepRunner(CASES[name], _SAMPLES, _SIZE)
        for each in (runner, baseline):
            each.step()
            each.trainer.clock.take()

        def step_without() -> None:
            baseline.step()

        # In turns: what else the machine does hits both.
        loss = benchmark.pedantic(runner.step, setup=step_without, rounds=12, warmup_rounds=2)
    phases, alone = runner.trainer.clock.take(), baseline.trainer.clock.take()
    total, without = sum(phases.values()), sum(alone.values())
    main, texts = runner.tokens
    benchmark.extra_info |= {
        "case": name,
        "samples": _SAMPLES,
        "objective": loss,
        "parameters": runner.trainer.model.num_parameters(),
        "overhead": total / without - 1,
        "extra_tokens": (main + texts) / baseline.tokens[0] - 1,
        "split": {phase: seconds / total for phase, seconds in phases.items()},
    }
