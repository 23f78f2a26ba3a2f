"""Writing weights in shards of bounded size, into a folder that appears when it is complete."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from exgra_adapter.conversion.plan import Transfer

logger = logging.getLogger(__name__)

WeightFormat = Literal["safetensors", "bin"]
_STEM = {"safetensors": "model", "bin": "pytorch_model"}


def write_weights(folder: Path, transfers: list[Transfer], weight_format: WeightFormat, shard_bytes: int) -> None:
    """Writes tensors: those of the model in shards with an index as transformers reads it, others in their own files.

    At most one shard is in memory, beside what the sources hold.

    Args:
        folder: Receives the files.
        transfers: The tensors.
        weight_format: `safetensors`, or `bin` for what `torch.save` writes.
        shard_bytes: Largest shard; a single larger tensor gets a shard of its own.

    Raises:
        ValueError: A number does not fit the type it is to be written in.
        OSError: The disk is full.
    """
    total = sum(transfer.bytes for transfer in transfers)
    free = shutil.disk_usage(folder).free
    if total > free:
        raise OSError(
            f"convert: the output needs {total / 1e9:.1f} GB; got {free / 1e9:.1f} GB of free space. Make room first."
        )
    ordered = sorted((t for t in transfers if t.file is None), key=lambda transfer: transfer.order)
    shards = _shards(ordered, shard_bytes)
    stem, number = _STEM[weight_format], len(shards)
    with tqdm(total=total, unit="B", unit_scale=True, desc="converting", disable=None) as bar:
        weight_map: dict[str, str] = {}
        for index, shard in enumerate(shards, start=1):
            middle = f"-{index:05d}-of-{number:05d}" if number > 1 else ""
            name = f"{stem}{middle}.{weight_format}"
            _write_file(folder / name, shard, weight_format, bar)
            weight_map |= {transfer.target: name for transfer in shard}
        for name in sorted({t.file for t in transfers if t.file is not None}):
            _write_file(folder / name, [t for t in transfers if t.file == name], "safetensors", bar)
    if number > 1:
        content = {"metadata": {"total_size": sum(t.bytes for t in ordered)}, "weight_map": weight_map}
        text = json.dumps(content, indent=2, sort_keys=True) + "\n"
        (folder / f"{stem}.{weight_format}.index.json").write_text(text, encoding="utf-8")


def _shards(transfers: list[Transfer], shard_bytes: int) -> list[list[Transfer]]:
    shards: list[list[Transfer]] = [[]]
    filled = 0
    for transfer in transfers:
        if shards[-1] and filled + transfer.bytes > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(transfer)
        filled += transfer.bytes
    return shards


def _write_file(path: Path, transfers: list[Transfer], weight_format: WeightFormat, bar: tqdm) -> None:
    tensors: dict[str, Tensor] = {}
    storages: set[int] = set()
    for transfer in transfers:
        value = cast(transfer.read(), transfer.dtype, transfer.target).contiguous()
        storage = value.untyped_storage()
        # A file holds whole storages: views of a larger one, and two tensors in one, are copied out first.
        if storage.data_ptr() in storages or storage.nbytes() != value.nbytes:
            value = value.clone()
        storages.add(value.untyped_storage().data_ptr())
        tensors[transfer.target] = value
        bar.update(transfer.bytes)
    if weight_format == "safetensors":
        save_file(tensors, path, metadata={"format": "pt"})
    else:
        torch.save(tensors, path)


def cast(value: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """Returns `value` in another type.

    Raises:
        ValueError: A finite number becomes infinite.

    Example:
        >>> import torch
        >>> cast(torch.tensor([1e6]), torch.float16, "w")
        Traceback (most recent call last):
            ...
        ValueError: convert: w must fit torch.float16; got numbers up to 1e+06. Use --dtype bf16 or fp32.
    """
    if value.dtype == dtype:
        return value
    result = value.to(dtype)
    if dtype.is_floating_point and bool((result.isinf() & ~value.isinf()).any()):
        raise ValueError(
            f"convert: {name} must fit {dtype}; got numbers up to {float(value.abs().max()):.4g}. "
            "Use --dtype bf16 or fp32."
        )
    return result
