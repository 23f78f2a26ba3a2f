"""The launch scripts of training: they parse, and they train the tiny model in two processes."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from exgra_adapter.data.records import Record, Turn, write_records

SCRIPTS = ("train_torchrun.sh", "train_slurm.sh")
STEPS = 2


@pytest.fixture(scope="module")
def small(tmp_path_factory: Any) -> list[str]:
    """Options that train the tiny model on eight samples for two steps."""
    folder = tmp_path_factory.mktemp("data")
    rng, records = np.random.default_rng(0), []
    for index in range(8):
        Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)).save(folder / f"{index}.png")
        turn = Turn("Where is the lesion?", f"level {index}", f"The lesion lies at level {index}.")
        records.append(Record(str(index), f"{index}.png", (turn,), "OPEN"))
    write_records(folder / "train.json", records)
    options = ["--config", "tiny", "--data", folder / "train.json", "--images", folder]
    for setting in (f"max_steps={STEPS}", "batch_size=2", "logging_steps=1"):
        options += ["--set", setting]
    return list(map(str, options))


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def run(words: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a script where torchrun and accelerate are those of this environment."""
    path = os.pathsep.join([*variables.pop("path", "").split(), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", **variables, "PATH": path}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=200, check=False)


def assert_trained_by_two(done: subprocess.CompletedProcess[str], output: Path) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    # Two steps of two processes with two samples each; one process would have seen four.
    assert f"Trained {STEPS} steps on {STEPS * 4} samples" in done.stdout, done.stdout
    assert json.loads((output / "summary.json").read_text())["samples"] == STEPS * 4


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_scripts_parse(scripts: Path, name: str) -> None:
    assert os.access(scripts / name, os.X_OK)
    assert subprocess.run(["bash", "-n", scripts / name], capture_output=True, check=False).stderr == b""


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck_has_nothing_to_say(scripts: Path, name: str) -> None:
    done = subprocess.run(["shellcheck", scripts / name], capture_output=True, text=True, check=False)
    assert done.stdout == ""


def test_without_options_or_a_job_the_scripts_say_how_to_start_them(scripts: Path, tmp_path: Path) -> None:
    done = run(["bash", str(scripts / "train_torchrun.sh")], tmp_path)
    assert done.returncode == 2
    assert "NODES=2 HEAD=10.0.0.1 examples/scale/train_torchrun.sh --config stage2" in done.stdout
    done = run(["bash", str(scripts / "train_slurm.sh"), "--config", "stage2"], tmp_path, SLURM_JOB_ID="")
    assert done.returncode == 2
    assert "start it with sbatch" in done.stderr


@pytest.mark.slow
def test_torchrun_trains_in_two_processes_and_goes_on(scripts: Path, small: list[str], tmp_path: Path) -> None:
    words = ["bash", str(scripts / "train_torchrun.sh"), *small, "--output", "run"]
    done = run(words, tmp_path, PROCESSES="2", PORT=free_port())
    assert_trained_by_two(done, tmp_path / "run")
    again = run(words, tmp_path, PROCESSES="2", PORT=free_port())
    assert again.returncode == 0, again.stdout + again.stderr


@pytest.mark.slow
def test_slurm_starts_torchrun_on_each_machine(scripts: Path, small: list[str], tmp_path: Path) -> None:
    """With commands that stand in for SLURM's, on its single machine."""
    (tmp_path / "slurm").mkdir()
    for name, text in (("srun", 'exec "$@"'), ("scontrol", "echo 127.0.0.1")):
        (tmp_path / "slurm" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "slurm" / name).chmod(0o755)
    copy = shutil.copy(scripts / "train_slurm.sh", tmp_path / "slurm_script")
    job = {"SLURM_JOB_ID": free_port(), "SLURM_JOB_NODELIST": "here", "SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "2"}
    job["SLURM_SUBMIT_DIR"] = str(scripts.parents[1])
    done = run(["bash", str(copy), *small, "--output", "run"], tmp_path, path=str(tmp_path / "slurm"), **job)
    assert_trained_by_two(done, tmp_path / "run")


@pytest.mark.slow
def test_accelerate_trains_in_two_processes(scripts: Path, small: list[str], tmp_path: Path) -> None:
    """With its configuration, but for what this machine lacks: a second one, and GPUs."""
    settings = yaml.safe_load((scripts / "accelerate.yaml").read_text(encoding="utf-8"))
    assert (settings["num_machines"], settings["num_processes"], settings["use_cpu"]) == (2, 8, False)
    here = {"distributed_type": "MULTI_CPU", "num_machines": 1, "num_processes": 2, "use_cpu": True}
    (tmp_path / "accelerate.yaml").write_text(yaml.safe_dump({**settings, **here}), encoding="utf-8")
    launch = ["accelerate", "launch", "--config_file", "accelerate.yaml", "--main_process_port", free_port()]
    done = run([*launch, "--module", "exgra_adapter", "train", "stage2", *small, "--output", "run"], tmp_path)
    assert_trained_by_two(done, tmp_path / "run")
