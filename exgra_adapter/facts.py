"""What a finished run knows about itself: for the report and the model card."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import resource
import sys
from pathlib import Path

import torch
from torch import nn

from exgra_adapter.config import TINY, TrainingConfig
from exgra_adapter.data.files import record_files
from exgra_adapter.distributed import world_size
from exgra_adapter.prompts import PromptFormat
from exgra_adapter.reporting.facts import Facts
from exgra_adapter.runs import TrainingSummary

_PACKAGES = ("graphmatch", "torch", "transformers", "peft", "accelerate", "pyarrow")


def describe_run(model: nn.Module, config: TrainingConfig, summary: TrainingSummary, prompt: PromptFormat) -> Facts:
    """Collects sizes, versions, data and machine of a run."""
    parameters = list(model.parameters())
    facts: Facts = {
        "samples": summary.samples,
        "skipped": summary.skipped,
        "steps": summary.steps,
        "seconds": summary.seconds,
        "parameters": sum(each.numel() for each in parameters),
        "trainable": sum(each.numel() for each in parameters if each.requires_grad),
        "world_size": world_size(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "CPU",
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "data_file": config.data.name,
        "data_sha256": _hash(record_files(config.data, "train")),
        "data_count": summary.samples + summary.skipped,
        "peak_memory_bytes": _peak_memory(),
        "prompt": prompt.prompt("Is there a lesion?"),
    }
    if config.model != TINY:
        facts["base_model"] = config.model
    return facts


def _hash(files: list[Path]) -> str:
    """Returns one SHA-256 over the content of all files, in order."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()


def _peak_memory() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
