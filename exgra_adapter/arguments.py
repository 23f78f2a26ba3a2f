"""The arguments of transformers' Trainer that follow from our settings."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from exgra_adapter.config import TrainingConfig

_CONFIGS = Path(__file__).parent / "configs"
_DEEPSPEED = {"zero2": "deepspeed_zero2.json", "zero3": "deepspeed_zero3.json"}


def training_arguments(config: TrainingConfig, folder: Path) -> TrainingArguments:
    """Makes the Trainer's arguments.

    Args:
        config: Settings with the stage's defaults in place (`resolved`).
        folder: Where checkpoints go.

    Raises:
        ValueError: The machine lacks what a setting needs.
    """
    on_gpu = torch.cuda.is_available()
    if config.precision == "fp16" and not on_gpu:
        raise ValueError("train: precision fp16 must run on a GPU; got a machine without one. Use bf16 or fp32.")
    trackers = [name.strip() for name in config.report_to.split(",") if name.strip() not in ("", "none", "tensorboard")]
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=config.epochs or 1.0,
        max_steps=config.max_steps or -1,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=config.learning_rate or 0.0,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup_ratio,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_gradient_norm,
        optim=config.optimizer,
        bf16=config.precision == "bf16",
        fp16=config.precision == "fp16",
        tf32=True if config.tf32 and on_gpu and torch.cuda.get_device_capability() >= (8, 0) else None,
        seed=config.seed,
        data_seed=config.seed,
        logging_steps=config.logging_steps,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=config.save_steps,
        save_total_limit=2,
        dataloader_num_workers=config.workers,
        dataloader_pin_memory=on_gpu,
        # Every process reads a stream and keeps its share; batches of different lengths cannot be sent around.
        accelerator_config={"dispatch_batches": False},
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        use_cpu=not on_gpu,
        disable_tqdm=True,
        report_to=trackers or "none",
        **_checkpointing(config),
        **_sharding(config),
    )
    if arguments.n_gpu > 1:
        raise ValueError(
            f"train: one process must see one GPU; got {arguments.n_gpu}. "
            "Start it with torchrun, or set CUDA_VISIBLE_DEVICES=0."
        )
    return arguments


def _checkpointing(config: TrainingConfig) -> dict[str, Any]:
    # FSDP has its own; later versions of transformers call it by another name.
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    name = "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"
    wanted = config.gradient_checkpointing and config.fsdp == "none"
    return {name: True, f"{name}_kwargs": {"use_reentrant": False}} if wanted else {}


def _sharding(config: TrainingConfig) -> dict[str, Any]:
    if config.fsdp != "none":
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            raise ValueError(
                f"train: fsdp must have several processes to shard over; got fsdp={config.fsdp} and 1 process. "
                "Start it with torchrun, or set fsdp=none."
            )
        if config.fsdp == "offload" and not torch.cuda.is_available():
            raise ValueError(
                "train: fsdp=offload must run on GPUs; got a machine without one, where everything is in host memory "
                "already. Use fsdp=full."
            )
        settings = json.loads((_CONFIGS / "fsdp.json").read_text(encoding="utf-8"))
        settings["cpu_offload"] = config.fsdp == "offload"
        settings["activation_checkpointing"] = config.gradient_checkpointing
        return {"fsdp": True, "fsdp_config": settings}
    if config.deepspeed is None:
        return {}
    path = _CONFIGS / _DEEPSPEED[config.deepspeed] if config.deepspeed in _DEEPSPEED else Path(config.deepspeed)
    if not path.is_file():
        raise ValueError(
            f"train: deepspeed must be zero2, zero3 or the path of a configuration file; got {config.deepspeed!r}. "
            "Check the path."
        )
    try:
        importlib.import_module("deepspeed")
    except ImportError:
        raise ValueError(
            "train: the package deepspeed must be installed for the setting deepspeed; got none. "
            "Install it with `pip install deepspeed`, or use fsdp=full, which needs nothing more."
        ) from None
    return {"deepspeed": str(path)}
