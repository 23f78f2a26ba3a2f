"""The overhead study: parts of a step are timed where they belong, and the text says what was measured."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
PAUSE = 0.3  # seconds, longer than any part of a tiny step
BACKWARD = ("graph backward", "solve backward", "text backward", "backward")


@pytest.fixture(scope="module", autouse=True)
def _importable() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        pytest.importorskip("benchmarks")
        yield


def module(name: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.studies.{name}")


@pytest.fixture(scope="module")
def runner() -> Any:
    """A step with alignment, of 4 samples."""
    return module("overhead_point").PhasedRunner("barycenter", 4, 1)


class _Pause(torch.autograd.Function):
    """The identity, whose backward pass takes its time."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        time.sleep(PAUSE)
        return gradient


class _Slow:
    """A gradient estimator whose backward pass takes its time."""

    def __init__(self, estimator: Any) -> None:
        self.forward = estimator.forward
        self._backward = estimator.backward

    def backward(self, *arguments: Any) -> Any:
        time.sleep(PAUSE)
        return self._backward(*arguments)


def pause_after(module: nn.Module, call: int) -> Callable[[], None]:
    """Slows down the backward pass behind the first result of one call of a module; returns what ends it."""
    calls = []

    def slow(module: nn.Module, inputs: Any, output: Any) -> Any:
        calls.append(call)
        if len(calls) - 1 != call:
            return output
        if isinstance(output, Tensor):
            return _Pause.apply(output)
        if isinstance(output, tuple):
            return (_Pause.apply(output[0]), *output[1:])
        output.last_hidden_state = _Pause.apply(output.last_hidden_state)
        return output

    return module.register_forward_hook(slow).remove


@pytest.mark.parametrize(
    ("part", "call", "phase"),
    [("decoder", 0, "backward"), ("decoder", 1, "text backward"), ("messages", 0, "graph backward"),
     ("matching", 0, "graph backward"), ("estimator", 0, "solve backward")],
)  # fmt: skip
def test_backward_parts_are_timed_where_they_belong(
    part: str, call: int, phase: str, runner: Any, monkeypatch: pytest.MonkeyPatch
):
    """A pause is a lower bound that holds on any machine, and longer than the other parts are on most."""
    alignment = runner.trainer.alignment.objective.alignment
    if part == "estimator":
        monkeypatch.setattr(alignment.layer.gradient, "estimator", _Slow(alignment.layer.gradient.estimator))
        phases = runner.timed_step()
    else:
        decoder = runner.trainer.model.get_decoder()
        modules = {"decoder": decoder, "messages": alignment.message_passing, "matching": alignment.layer}
        end = pause_after(modules[part], call)
        phases = runner.timed_step()
        end()
    assert phases[phase] >= PAUSE


def test_phases_of_a_step(runner: Any):
    phases = runner.timed_step()
    assert set(phases) == {"forward", "text", "graph", "solve", "optimizer", *BACKWARD}
    alone = module("overhead_point").PhasedRunner("autoregressive", 4, 1).timed_step()
    assert set(alone) == {"forward", "backward", "optimizer"}


def test_watching_changes_no_gradient(runner: Any):
    cases, point = importlib.import_module("benchmarks.training_cases"), module("overhead_point")
    plain = cases.StepRunner(cases.CASES["barycenter"], 4, 1)
    watched = point.PhasedRunner("barycenter", 4, 1)
    weights = []
    for each in (plain, watched):
        torch.manual_seed(0)
        each.step()
        weights.append([weight.detach().clone() for weight in each.trainer.model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))


def test_times_all_arms_in_turns():
    found = module("overhead_point").measure_time(4, 1, 0.0)
    assert found["rounds"] == 5
    assert set(found["phases"]) == {"autoregressive", "InfoNCE", "barycenter"}
    assert found["alone"] > 0
    assert found["overhead"] == sorted(found["overhead"])
    assert found["tokens"]["text"] > 0
    assert found["width"] == 128
    assert "solve" not in found["phases"]["InfoNCE"]
    assert json.loads(json.dumps(found)) == found


def test_memory_of_a_fresh_process(tmp_path: Path):
    arguments = ["memory", "--samples", "4", "--size", "1", "--threads", "1", "--arm", "barycenter"]
    found = module("overhead").measure_apart(arguments, str(tmp_path))
    # A model of a million parameters, its gradients and two moments, and little beside it.
    assert 4 * 4 * 0.9e6 < found["peak_bytes"] < 400e6


def test_failures_of_a_process_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module("overhead"), "ROOT", tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(RuntimeError, match=r"overhead_point memory failed:\n.*No module named"):
        module("overhead").measure_apart(["memory"], str(tmp_path))


# The report, of points written by hand


def _point(samples: int, size: int, load: float) -> dict[str, Any]:
    shares = {"text": 0.2, "text backward": 0.3, "graph": 0.01, "graph backward": 0.02, "solve": 0.03}
    seconds = {name: 2 * share for name, share in {**shares, "solve backward": 0.04}.items()}
    return {
        "phases": {"autoregressive": {}, "InfoNCE": {}, "barycenter": seconds},
        "alone": 2.0,
        "overhead": [0.6, 0.61, 0.65],
        "contrast": [0.5, 0.52, 0.55],
        "rounds": 7,
        "tokens": {"main": 1000.0, "text": 550.0},
        "width": 128 * size,
        "parameters": 1_000_000 * size,
        "load": load,
    }


@pytest.fixture
def report(tmp_path: Path) -> Callable[[float], str]:
    """Writes points of the default places, makes the report and returns it."""
    overhead = module("overhead")
    settings = overhead.Settings()

    def make(load: float) -> str:
        points: dict[str, Any] = {}
        for samples, size in settings.places():
            points[f"time | {samples} | {size}"] = _point(samples, size, load)
            for arm, peak in (("autoregressive", 100_000_000), ("barycenter", 100_000_000 + samples * 1_000_000)):
                points[f"memory | {samples} | {size} | {arm}"] = {"peak_bytes": peak}
        machine = {"cpu": "Test CPU", "cores": 2, "system": "Linux"}
        source = {"versions": {"torch": "9.9"}, "machine": machine, "threads": 2, "commit": "abc"}
        result = {"settings": asdict(settings), **source, "points": points}
        (tmp_path / "overhead.json").write_text(json.dumps(result), encoding="utf-8")
        overhead.main(["--plot-only", "--output", str(tmp_path)])
        assert (tmp_path / "overhead.png").read_bytes().startswith(b"\x89PNG")
        return (tmp_path / "overhead.md").read_text(encoding="utf-8")

    return make


def test_report_says_what_was_measured(report: Callable[[float], str]):
    text = report(1.5)
    assert (
        "**At 16 samples and width 256** the alignment adds 61 % to a step of 2000 ms (quartiles 60 % to 65 %)" in text
    )
    assert "the text pass 50 %, graphs 3.0 %, solving 7.0 %. The texts are 55 % more tokens." in text
    assert "InfoNCE on the same texts adds 52 %." in text
    assert "from 4 to 64 overhead 61 % to 61 %" in text
    assert "from 128 to 512 overhead" in text
    assert "**Graphs and solver together** add at most 10 %" in text
    assert "**Peak memory** grows by 4.0 % (at 4 samples, width 256) to 64 % (at 64 samples, width 256)." in text
    shares = "20 % | 30 % | 1.0 % | 2.0 % | 3.0 % | 4.0 % | 1.0 % | 52 % | 55 %"
    row = f"| 16 | 256 | 2.0 M | 2000 ms | 61 % | 60 % to 65 % | {shares} |"
    assert row in text
    assert "| 64 | 256 | 100 | 164 | 64 | 64 % |" in text
    assert "Test CPU, 2 cores, Linux; 2 threads; torch 9.9; commit abc. Largest load of the machine: 1.5." in text


def test_report_warns_of_a_busy_machine(report: Callable[[float], str]):
    assert "Largest load of the machine: 9, more than the threads in use: times are too long." in report(9.0)


@pytest.mark.slow
def test_quick_run(tmp_path: Path):
    module("overhead").main(["--quick", "--output", str(tmp_path)])
    assert sorted(each.name for each in tmp_path.iterdir()) == ["overhead.json", "overhead.md", "overhead.png"]
    points = json.loads((tmp_path / "overhead.json").read_text(encoding="utf-8"))["points"]
    assert set(points) == {"time | 4 | 1", "memory | 4 | 1 | autoregressive", "memory | 4 | 1 | barycenter"}
    alone, aligned = (points[f"memory | 4 | 1 | {arm}"]["peak_bytes"] for arm in ("autoregressive", "barycenter"))
    assert alone < aligned
