"""Run by torchrun: a loss of the rows of all processes, its value and the gradients that every process gets of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from exgra_adapter.distributed import gather_rows, gather_sizes, on_main_process, world_size

VIEWS = 3


def loss_of(views: list[Tensor]) -> Tensor:
    """Every row meets every other one, of its own view and of the others."""
    rows = torch.cat(views)
    return (rows @ rows.T).softmax(1).square().mean() + rows.sin().sum()


def views_of(rows: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(rows)
    return [torch.randn(rows, 5, generator=generator, dtype=dtype) for _ in range(VIEWS)]


def caught(error: Exception) -> str:
    """Fails on the main process and returns what this one sees of it."""

    def fail() -> None:
        raise error

    try:
        on_main_process(fail)
    except type(error) as seen:
        return str(seen)
    return "nothing"


def main(folder: Path) -> None:
    """Writes what this process found; the sizes of the other processes come first."""
    dist.init_process_group("gloo")
    rank, found = dist.get_rank(), {}
    assert world_size() == dist.get_world_size()
    for number, sizes in enumerate(([3, 3, 3], [2, 5, 1], [4, 0, 1], [0, 0, 2])):
        assert gather_sizes(sizes[rank], torch.device("cpu")) == sizes
        for dtype in (torch.float32, torch.float64):
            start = sum(sizes[:rank])
            mine = [view[start : start + sizes[rank]].requires_grad_() for view in views_of(sum(sizes), dtype)]
            loss = loss_of([gather_rows(view, sizes) for view in mine])
            loss.backward()
            found[f"{number} {dtype} loss"] = loss.detach()
            for place, view in enumerate(mine):
                # Data-parallel training averages the gradients of parameters, and with them those of nodes.
                found[f"{number} {dtype} gradient {place}"] = view.grad / len(sizes)
    for error in (ValueError("one"), FileNotFoundError(2, "two", "name")):
        found[f"error {caught(error)}"] = torch.tensor(rank)
    assert on_main_process(lambda: f"from {rank}") == "from 0"
    torch.save(found, folder / f"{rank}.pt")
    dist.barrier()
    os._exit(0)  # gloo may abort while Python takes the process apart


if __name__ == "__main__":
    main(Path(sys.argv[1]))
