"""Training over several processes: what two processes compute is what one computes that holds everything."""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.utils.deepspeed import HfDeepSpeedConfig as AccelerateConfig
from PIL import Image
from safetensors.torch import load_file
from transformers.integrations import deepspeed

from exgra_adapter import arguments
from exgra_adapter.config import TrainingConfig
from exgra_adapter.data.records import Record, Turn, write_records
from exgra_adapter.models.load import load_model
from exgra_adapter.models.tiny import build_tiny_model
from exgra_adapter.observer import StepObserver
from exgra_adapter.training import train

SCRIPTS = Path(__file__).parent / "distributed"
# Settings that are trained in two processes with whole and with sharded parameters.
SHARDED: dict[str, dict[str, Any]] = {
    "vlap": {"objective": "vlap"},
    "siglip": {"objective": "siglip"},
    "optimal_transport": {"objective": "optimal_transport"},
    "dci": {"objective": "none", "dense_connector": "dci"},
    "stage1": {"stage": "stage1"},
    "lora": {"objective": "barycenter", "lora_rank": 4, "lora_dropout": 0.0},
    "checkpointed": {"objective": "barycenter", "gradient_checkpointing": True},
}
SAMPLES = 16


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings that name sixteen samples, which batches of 2, 4, 8 and 16 divide evenly; no answer occurs twice."""
    folder = tmp_path_factory.mktemp("even")
    rng = np.random.default_rng(0)
    records = []
    for index in range(SAMPLES):
        Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)).save(folder / f"{index}.png")
        side = "left" if index % 2 else "right"
        extended = f"The lesion lies on the {side} side at level {index}, which is {'high' * (index % 3)} up."
        turns = (Turn("Where is the lesion?", f"{side}, level {index}{' or so' * (index % 4)}", extended),)
        records.append(Record(str(index), f"{index}.png", turns, "OPEN"))
    write_records(folder / "train.json", records)
    return {"data": str(folder / "train.json"), "images": str(folder)}


def settings(data: dict[str, Any], output: Path, **changes: Any) -> dict[str, Any]:
    # Plain gradient descent: weights are then as close as gradients are, and no first step is lost to the warm-up.
    fast = {"optimizer": "sgd", "learning_rate": 0.05, "warmup_ratio": 0.0, "max_gradient_norm": 1e6}
    small = {"stage": "stage2", "max_steps": 3, "batch_size": 4, "logging_steps": 1}
    return {**data, "output": str(output), **small, **fast, **changes}


def torchrun(*arguments: str | Path, processes: int = 2, seconds: float = 150) -> subprocess.CompletedProcess[str]:
    """Runs a script or module in several processes on the CPU."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    return subprocess.run(
        [*command, "--master-port", str(port), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def train_together(folder: Path, runs: list[dict[str, Any]], killed_at: int = 0, seconds: float = 150) -> None:
    """Trains in two processes, one run after the other."""
    (folder / "runs.json").write_text(json.dumps(runs), encoding="utf-8")
    done = torchrun(SCRIPTS / "runs.py", folder / "runs.json", str(killed_at), seconds=seconds)
    if killed_at:
        assert f"exitcode  : {-signal.SIGKILL}" in done.stderr, done.stderr
    else:
        assert done.returncode == 0, done.stdout + done.stderr


def train_alone(values: dict[str, Any]) -> Path:
    return train(TrainingConfig(**values), console_progress=False).output


def history(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "history.jsonl").read_text(encoding="utf-8").splitlines()]


def column(output: Path, name: str) -> list[float]:
    return [entry[name] for entry in history(output)]


def notes(output: Path) -> list[list[dict[str, Any]]]:
    """What each of the two processes has seen in each step."""
    return [json.loads(output.with_name(f"{output.name}.{rank}.json").read_text()) for rank in range(2)]


def weights(output: Path) -> dict[str, torch.Tensor]:
    """The weights of model and objective."""
    files = [path for path in output.glob("*.safetensors") if path.is_file()]
    assert files
    return {f"{path.stem} {name}": value for path in files for name, value in load_file(path).items()}


def assert_same_weights(left: Path, right: Path, tolerance: float = 2e-5) -> None:
    first, second = weights(left), weights(right)
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(
            second[name], value, rtol=0.0, atol=tolerance, msg=lambda text, name=name: name + text
        )


def assert_same_history(left: Path, right: Path, *more: str) -> None:
    known = history(right)[0].keys()
    for name in ("loss", "ar_loss", "gradient_norm", *more, *({"alignment_loss"} & known)):
        assert column(left, name) == pytest.approx(column(right, name), rel=1e-5), name


def assert_sharded_as_whole(sharded: Path, whole: Path) -> None:
    """Every parameter was sharded, and what is left behind is the same, names included."""
    assert all(step["sharded"] for process in notes(sharded) for step in process)
    assert all(step["whole"] for process in notes(whole) for step in process)
    assert_same_weights(sharded, whole)
    names = [{path.name for path in output.iterdir()} for output in (sharded, whole)]
    assert names[0] == names[1]
    name = "config.json" if (whole / "config.json").is_file() else "adapter_config.json"
    assert json.loads((sharded / name).read_text()) == json.loads((whole / name).read_text())


@pytest.fixture(scope="module")
def together(data, tmp_path_factory) -> Path:
    """The folder of the runs in two processes that the quick tests compare: processes take long to start."""
    folder = tmp_path_factory.mktemp("together")
    sharded = settings(data, folder / "sharded", objective="barycenter", fsdp="full")
    local = settings(data, folder / "local", objective="infonce", graph_scope="local")
    train_together(folder, [settings(data, folder / "barycenter", objective="barycenter"), sharded, local])
    return folder


@pytest.fixture(scope="module")
def more_together(data, tmp_path_factory) -> Path:
    """The folder of all other runs in two processes; those of both kinds of training have `-sharded` at the end."""
    folder = tmp_path_factory.mktemp("more")
    kinds: dict[str, dict[str, Any]] = {
        "infonce": {"objective": "infonce"},
        "pairwise": {"objective": "pairwise"},
        "accumulated": {"objective": "infonce", "batch_size": 2, "gradient_accumulation": 2},
        "accumulated-sharded": {"objective": "infonce", "batch_size": 2, "gradient_accumulation": 2, "fsdp": "full"},
    }
    for name, changes in SHARDED.items():
        kinds |= {name: changes, f"{name}-sharded": {**changes, "fsdp": "full"}}
    train_together(folder, [settings(data, folder / name, **changes) for name, changes in kinds.items()], seconds=280)
    return folder


def test_gathered_rows_are_those_of_one_process(tmp_path):
    """Sizes may differ, and a process may have no row at all."""
    done = torchrun(SCRIPTS / "gather.py", tmp_path, processes=3, seconds=60)
    assert done.returncode == 0, done.stdout + done.stderr
    script = runpy.run_path(str(SCRIPTS / "gather.py"))
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(3)]
    for number, rows in enumerate((9, 8, 5, 2)):
        for dtype in (torch.float32, torch.float64):
            views = [view.requires_grad_() for view in script["views_of"](rows, dtype)]
            loss = script["loss_of"](views)
            loss.backward()
            for each in found:
                torch.testing.assert_close(each[f"{number} {dtype} loss"], loss.detach(), rtol=0, atol=0)
            for place, view in enumerate(views):
                gathered = torch.cat([each[f"{number} {dtype} gradient {place}"] for each in found])
                torch.testing.assert_close(gathered, view.grad)
    for each in found:
        assert {"error one", "error [Errno 2] two: 'name'"} <= each.keys(), "errors of the main process are everyone's"


@pytest.mark.parametrize(
    "objective", ["barycenter", *(pytest.param(name, marks=pytest.mark.slow) for name in ("infonce", "pairwise"))]
)
def test_a_graph_spans_the_processes(data, request, tmp_path, objective):
    """Trap 4: two processes with batches of b make graphs of N = 2 b nodes, as one process with a batch of 2 b does.

    The matching objectives draw noise for their gradient and drop messages out; both are the same on every process.
    """
    both = request.getfixturevalue("together" if objective == "barycenter" else "more_together") / objective
    alone = train_alone(settings(data, tmp_path / "alone", objective=objective, batch_size=8))
    assert all(column(alone, "alignment_loss"))
    matched = () if objective == "infonce" else ("matching_accuracy",)
    assert_same_history(both, alone, "retrieval", *matched)
    assert_same_weights(both, alone)


def test_graphs_of_each_process_are_halves(data, together, tmp_path):
    """With local graphs the loss is the mean of those of the two halves, which one process sees one after the other."""
    halves = train_alone(
        settings(data, tmp_path / "halves", objective="infonce", batch_size=4, gradient_accumulation=2)
    )
    assert column(together / "local", "alignment_loss") == pytest.approx(column(halves, "alignment_loss"), rel=1e-5)
    assert_same_weights(together / "local", halves)
    whole = train_alone(settings(data, tmp_path / "whole", objective="infonce", batch_size=8, max_steps=1))
    difference = column(whole, "alignment_loss")[0] - column(halves, "alignment_loss")[0]
    assert difference > 0.3, "the whole has twice the negatives, which cost log 2 at chance"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["accumulated", "accumulated-sharded"])
def test_accumulation_counts_alike_in_any_number_of_processes(data, more_together, tmp_path, kind):
    alone = train_alone(settings(data, tmp_path / "alone", objective="infonce", gradient_accumulation=2))
    assert_same_history(more_together / kind, alone)
    assert_same_weights(more_together / kind, alone)


def test_sharded_training_is_data_parallel_training(together):
    sharded, whole = together / "sharded", together / "barycenter"
    assert_same_history(sharded, whole, "retrieval", "gradient_norm_alignment")
    assert_sharded_as_whole(sharded, whole)
    model, _ = load_model(sharded)  # refuses missing and surplus weights
    assert not any("alignment" in name for name in model.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHARDED)
def test_whatever_is_trained_can_be_sharded(more_together, kind):
    sharded, whole = more_together / f"{kind}-sharded", more_together / kind
    assert_same_history(sharded, whole)
    assert_sharded_as_whole(sharded, whole)


def test_accumulation_is_a_larger_batch(data, tmp_path):
    """Two batches of 8 teach what one of 16 does, although their answers are not equally long."""
    once = {"objective": "none", "max_steps": 1}
    split = train_alone(settings(data, tmp_path / "split", batch_size=8, gradient_accumulation=2, **once))
    whole = train_alone(settings(data, tmp_path / "whole", batch_size=16, **once))
    assert_same_weights(split, whole, 1e-6)
    assert column(split, "ar_loss") == pytest.approx(column(whole, "ar_loss"), rel=1e-5)


@pytest.mark.parametrize("objective", ["barycenter", pytest.param("none", marks=pytest.mark.slow)])
def test_loss_scaling_changes_nothing(data, tmp_path, monkeypatch, objective):
    """Trap 1: what fp16 multiplies losses with, and divides gradients by, leaves no trace in the weights."""
    plain = train_alone(settings(data, tmp_path / "plain", objective=objective, gradient_accumulation=2))
    measure = StepObserver.on_pre_optimizer_step

    def unscale(self: StepObserver, *args: Any, **kwargs: Any) -> None:
        for parameter in kwargs["model"].parameters():
            if parameter.grad is not None:
                parameter.grad /= 65536.0
        measure(self, *args, **kwargs)

    monkeypatch.setattr(StepObserver, "on_pre_optimizer_step", unscale)
    monkeypatch.setattr(Accelerator, "backward", lambda self, loss, **kwargs: (loss * 65536.0).backward())
    scaled = train_alone(
        settings(data, tmp_path / "scaled", objective=objective, gradient_accumulation=2, max_gradient_norm=1e9)
    )
    assert column(scaled, "loss") == pytest.approx(column(plain, "loss"), rel=1e-6)
    assert_same_weights(scaled, plain, 1e-7)


@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_configurations_of_deepspeed_are_complete(data, tmp_path, monkeypatch, name):
    """transformers fills in what it knows, finds no contradiction and leaves nothing open; DeepSpeed is not needed."""
    monkeypatch.setattr(deepspeed, "dep_version_check", lambda name: None)
    monkeypatch.setattr(deepspeed.HfDeepSpeedConfig, "__init__", AccelerateConfig.__init__)
    kinds = (deepspeed.HfTrainerDeepSpeedConfig, AccelerateConfig)
    config = TrainingConfig(**settings(data, tmp_path, precision="bf16", gradient_accumulation=3))
    found = type("Both", kinds, {})(str(arguments._CONFIGS / arguments._DEEPSPEED[name]))
    filled = arguments.training_arguments(config, tmp_path)
    found.trainer_config_process(filled)
    found.trainer_config_finalize(filled, build_tiny_model(["lesion"], seed=0)[0], 10)
    assert (found.is_zero2(), found.is_zero3()) == (name == "zero2", name == "zero3")
    assert "auto" not in json.dumps(found.config)
    assert found.config["bf16"]["enabled"] is True
    assert found.config["gradient_accumulation_steps"] == 3
    assert found.config["train_micro_batch_size_per_gpu"] == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"deepspeed": "zero4"}, "deepspeed must be zero2, zero3 or the path of a configuration file; got 'zero4'"),
        (
            {"deepspeed": "zero2"},
            "the package deepspeed must be installed for the setting deepspeed; got none",
        ),
        (
            {"fsdp": "full"},
            "fsdp must have several processes to shard over; got fsdp=full and 1 process",
        ),
    ],
)
def test_what_cannot_run_is_refused(data, tmp_path, monkeypatch, changes, message):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(ValueError, match=re.escape(message)):
        train(TrainingConfig(**settings(data, tmp_path / "run", **changes)), console_progress=False)
    assert not (tmp_path / "run").exists()
    if not torch.cuda.is_available():
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(ValueError, match="fsdp=offload must run on GPUs"):
            arguments.training_arguments(TrainingConfig(**settings(data, tmp_path, fsdp="offload")), tmp_path)


@pytest.mark.slow
def test_half_precision_is_sharded_too(data, tmp_path):
    """Gathered in bfloat16, with activations computed again: losses and gradients stay close, what is saved is not."""
    half = {"objective": "barycenter", "precision": "bf16", "gradient_checkpointing": True}
    runs = [settings(data, tmp_path / "sharded", fsdp="full", **half), settings(data, tmp_path / "whole", **half)]
    train_together(tmp_path, runs)
    sharded, whole = tmp_path / "sharded", tmp_path / "whole"
    assert all(step["sharded"] for process in notes(sharded) for step in process)
    for name in ("ar_loss", "gradient_norm_language_model"):
        assert column(sharded, name)[0] == pytest.approx(column(whole, name)[0], rel=1e-2), name
    for entry in history(sharded):
        assert entry["loss"] == pytest.approx(entry["ar_loss"] + entry["alignment_loss"], rel=1e-5)
    assert all(value.dtype == torch.float32 for value in load_file(sharded / "model.safetensors").values())
    assert_same_weights(sharded, whole, 0.02)
    load_model(sharded)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"fsdp": "full"}, {"lora_rank": 4}], ids=["whole", "sharded", "lora"])
def test_a_killed_run_resumes_with_the_same_result(data, tmp_path, changes):
    """AdamW, dropout, noise and the order of the data go on as if nothing had happened, bit for bit."""
    same = {"objective": "barycenter", "optimizer": "adamw_torch", "learning_rate": 1e-3, "batch_size": 2}
    same |= {"max_steps": 5, "save_steps": 2, "gradient_accumulation": 2, **changes}
    train_together(tmp_path, [settings(data, tmp_path / "whole", **same)])
    cut = settings(data, tmp_path / "cut", resume=True, **same)
    train_together(tmp_path, [cut], killed_at=6)  # in the middle of step 3
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    assert [path.name for path in (tmp_path / "cut" / "checkpoints").iterdir()] == ["checkpoint-2"]
    train_together(tmp_path, [cut])
    assert len(notes(tmp_path / "cut")[0]) == 6, "three steps were left"
    assert column(tmp_path / "cut", "loss") == column(tmp_path / "whole", "loss")
    assert_same_weights(tmp_path / "cut", tmp_path / "whole", 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_is_shared_out(data, tmp_path, workers):
    """Each sample goes to one process; behind the last one the stream begins again, and the run ends all the same."""
    model = train_alone(settings(data, tmp_path / "model", stage="stage1", max_steps=1))
    stream = {"streaming": True, "shuffle_buffer": 5, "model": str(model), "batch_size": 2, "workers": workers}
    train_together(tmp_path, [settings(data, tmp_path / "stream", max_steps=6, **stream)])
    first, second = (
        [tuple(row) for step in process[:4] for row in step["answers"]] for process in notes(tmp_path / "stream")
    )
    assert len({*first, *second}) == len([*first, *second]) == SAMPLES, "four steps see everything once"
    assert [len(process) for process in notes(tmp_path / "stream")] == [6, 6]
    assert json.loads((tmp_path / "stream" / "summary.json").read_text())["samples"] == 24


@pytest.mark.slow
def test_the_command_speaks_once(data, tmp_path):
    pairs = {"max_steps": 2, "batch_size": 4, "logging_steps": 1}
    options = [part for name, value in pairs.items() for part in ("--set", f"{name}={value}")]
    places = ["--data", data["data"], "--images", data["images"], "--output", str(tmp_path / "run")]
    command = ["-m", "exgra_adapter", "train", "stage2", "--config", "tiny", *places, *options]
    done = torchrun(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    for phrase in ("Settings", "* batch_size", "Trained 2 steps on 16 samples", "The alignment takes", "Model folder:"):
        assert done.stdout.count(phrase) == 1, done.stdout
    assert done.stdout.count("Report:") == 1
    assert (tmp_path / "run" / "report" / "report.md").is_file()
    again = torchrun(*command)
    assert again.returncode != 0
    assert again.stderr.count("output must be an empty folder") == 1, again.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "missing.json"], "must name an existing file"),
        (["--set", "deepspeed=zero4"], "deepspeed must be zero2, zero3 or the path"),
        (["--set", "batch_size=0"], "batch_size must be at least 1"),
    ],
)
def test_an_error_ends_all_processes_with_one_message(data, tmp_path, options, message):
    places = ["--data", data["data"], "--images", data["images"], "--output", str(tmp_path / "run")]
    done = torchrun("-m", "exgra_adapter", "train", "stage2", *places, *options, seconds=120)
    assert done.returncode != 0
    assert done.stderr.count(message) == 1, done.stderr
    assert "Traceback" not in done.stderr.split("ChildFailedError")[0].split("torch/distributed")[0], done.stderr
