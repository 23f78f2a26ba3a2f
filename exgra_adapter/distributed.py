"""Rows of all processes in one tensor, differentiably: a graph over the whole batch, whoever holds its samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel


def world_size() -> int:
    """Returns the number of processes; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


_Value = TypeVar("_Value")


def on_main_process(function: Callable[[], _Value]) -> _Value:
    """Runs a function on the main process only and returns its value everywhere; its error is raised everywhere.

    Every process must call it. The value must be picklable: it travels between processes of one run. So do ValueError
    and OSError; others end the main process, and whoever started the processes ends the rest.
    """
    if world_size() == 1:
        return function()
    message: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            message = [function(), None]
        except (ValueError, OSError) as error:
            message = [None, error]
    dist.broadcast_object_list(message)
    value, failure = message
    if failure is not None:
        raise failure
    result: _Value = value
    return result


def is_main_process() -> bool:
    """Whether this process writes files and messages."""
    return world_size() == 1 or dist.get_rank() == 0


def gather_sizes(rows: int, device: torch.device) -> list[int]:
    """Returns the number of rows that each process holds; every process must call it."""
    if world_size() == 1:
        return [rows]
    mine = torch.tensor([rows], device=device)
    found = [torch.empty_like(mine) for _ in range(world_size())]
    dist.all_gather(found, mine)
    return [int(each) for each in found]


def gather_rows(rows: Tensor, sizes: list[int]) -> Tensor:
    """Returns the rows `(n_rank, ...)` of all processes, `(sum of sizes, ...)`, in the order of the ranks.

    Made for a loss that every process computes from all rows, and gradients that are averaged over the processes, as
    data-parallel training does: each process sends back world size times the gradient of its own rows, so that the
    average is the gradient of the loss, the same as in one process that holds all rows.

    Args:
        rows: `(n_rank, ...)`; the later sizes are the same everywhere.
        sizes: Rows of each process, from `gather_sizes`.
    """
    if len(sizes) == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows, tuple(sizes))
    return gathered


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: tuple[int, ...]) -> Tensor:
        ctx.sizes = sizes
        longest = max(sizes)
        # Collectives want the same shape everywhere.
        padded = rows.new_zeros((longest, *rows.shape[1:]))
        padded[: rows.shape[0]] = rows
        found = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(found, padded)
        return torch.cat([each[:size] for each, size in zip(found, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        rank, sizes = dist.get_rank(), ctx.sizes
        start = sum(sizes[:rank])
        return len(sizes) * gradients[0][start : start + sizes[rank]], None


def prepare_sharding(accelerator: Accelerator, model: PreTrainedModel, settings: dict[str, Any]) -> None:
    """Tells an accelerator how to shard a model over processes; it must not have prepared anything yet.

    Every layer of a stack is one unit. In bf16 and fp16 the units are gathered in that precision, while gradients are
    summed up in float32 and losses stay what they are.

    Args:
        accelerator: Of the run.
        model: The model of transformers, without wrappers.
        settings: Those of accelerate's `FullyShardedDataParallelPlugin`.
    """
    from accelerate import PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
    from torch.distributed.fsdp import MixedPrecisionPolicy

    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    layers = {type(layer).__name__ for stack in stacks for layer in stack}
    whole: Any = model._no_split_modules
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision)
    # `_no_split_modules` also names layers of text towers, which a model that reads images may not have.
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
        **settings,
        transformer_cls_names_to_wrap=sorted(layers & set(whole or ())),
        mixed_precision_policy=dtype and MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32),
    )
    # accelerate ignores the setting on machines without GPU, and keeps what it found in two places.
    accelerator.state.distributed_type = PartialState().distributed_type = DistributedType.FSDP


@contextmanager
def unsharded_class(model: nn.Module) -> Iterator[None]:
    """Gives a sharded model its own class back until the context ends.

    FSDP exchanges the class, and by its name transformers chooses how the weights are called in a file.
    """
    from torch.distributed.fsdp import FSDPModule

    present: Any = type(model)
    model.__class__ = next(each for each in present.__mro__ if not issubclass(each, FSDPModule))
    try:
        yield
    finally:
        model.__class__ = present
