"""Every argument error of the library: what must hold, what was received, what to do.

On CUDA tensors values are not checked here, which would wait for the GPU, but shapes, dtypes and devices are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import operator
import os
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, SupportsFloat

import torch
from torch import Tensor

from graphmatch import _device

FLOAT_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

# Sums over millions of costs stay finite in double below this.
LARGEST_COST = 1e100
_UPSTREAM = "Look for a division by zero or an overflow upstream."
# Asking the system how much is free takes longer than solving a small problem.
_ALWAYS_FREE = 2**26


def message(where: str, argument: str, rule: str, received: object, cure: str) -> str:
    """Returns the sentence every argument error of the library has the form of."""
    return f"{where}: {argument} must {rule}; got {received}. {cure}"


def describe(value: object) -> str:
    """Returns the part of a value that argument errors show."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}, {value.dtype}, on {value.device}"
    return f"{type(value).__name__} {value!r}"


def tensor(where: str, argument: str, value: object, dimensions: int, shape_text: str) -> Tensor:
    """Checks that `value` is a tensor with `dimensions` axes, and returns it."""
    if not isinstance(value, Tensor):
        raise TypeError(
            message(where, argument, "be a torch.Tensor", describe(value), "Convert it with torch.as_tensor.")
        )
    if value.ndim != dimensions:
        cure = "Add the batch axis with tensor[None]." if value.ndim == dimensions - 1 else "Reshape it."
        raise ValueError(message(where, argument, f"have shape {shape_text}", describe(value), cure))
    return value


def target(where: str, value: Tensor, shape: Sequence[int]) -> Tensor:
    """Checks that a target is one matching (n1, n2) or one per problem of shape (b, n1, n2), and returns the latter."""
    if not isinstance(value, Tensor):
        raise TypeError(
            message(where, "target", "be a torch.Tensor", describe(value), "Convert it with torch.as_tensor.")
        )
    full = tuple(shape)
    if tuple(value.shape) not in (full, full[1:]):
        rule = f"have shape {full} or {full[1:]}, as the unary costs"
        raise ValueError(message(where, "target", rule, tuple(value.shape), "Pass a 0/1 matching per problem."))
    return value.expand(full)


def floating(where: str, argument: str, value: Tensor) -> Tensor:
    """Checks that a tensor holds floating-point costs, and returns it."""
    if not isinstance(value, Tensor) or value.dtype not in FLOAT_TYPES:
        raise TypeError(
            message(where, argument, "be a floating-point tensor", describe(value), "Convert it with tensor.float().")
        )
    return value


def integer(where: str, argument: str, value: Tensor) -> Tensor:
    """Checks that a tensor holds int64 indices, and returns it."""
    if not isinstance(value, Tensor) or value.dtype != torch.int64:
        raise TypeError(
            message(where, argument, "be an int64 tensor", describe(value), "Convert it with tensor.long().")
        )
    return value


def boolean(where: str, argument: str, value: object) -> Tensor:
    """Checks that a tensor is bool, and returns it."""
    if not isinstance(value, Tensor) or value.dtype != torch.bool:
        raise TypeError(message(where, argument, "be a bool tensor", describe(value), "Convert it with tensor.bool()."))
    return value


def shape(where: str, argument: str, value: Tensor, expected: Sequence[int], because: str) -> None:
    """Checks that a tensor has exactly the expected shape."""
    if tuple(value.shape) != tuple(expected):
        raise ValueError(
            message(where, argument, f"have shape {tuple(expected)} ({because})", tuple(value.shape), "Check both.")
        )


def counters(where: str, instances: object, batch: int) -> None:
    """Checks the numbers of a batch of problems, which their noise follows from."""
    numbers = integer(where, "instances", tensor(where, "instances", instances, 1, "(b,)"))
    shape(where, "instances", numbers, (batch,), "a number per problem")


def same_device(where: str, tensors: dict[str, Tensor]) -> None:
    """Checks that all tensors live on one device."""
    devices = {name: str(value.device) for name, value in tensors.items()}
    if len(set(devices.values())) > 1:
        raise ValueError(
            message(where, "all tensors", "be on one device", devices, "Move them with tensor.to(device).")
        )


def neighbours(where: str, edges: Tensor, nodes: int, count: int) -> None:
    """Refuses edges (..., e, 2) that cannot be `count` of each node."""
    if edges.shape[-2] == nodes * count:
        return
    rule = f"be {count} of each node, {nodes * count} in all, with neighbours={count}"
    raise ValueError(message(where, "edges", rule, edges.shape[-2], "Leave out neighbours where nodes differ."))


def costs(
    where: str, argument: str, value: Tensor, allow_infinite: bool, largest: float = LARGEST_COST, cure: str = _UPSTREAM
) -> None:
    """Checks that costs are numbers; +inf (a forbidden assignment) only where allowed. Compiled code has no values."""
    if value.numel() == 0 or _device.resident(value) or torch.compiler.is_compiling():
        return
    value = value.detach()
    lowest, highest = torch.aminmax(value)  # one pass; NaN wins both
    if float(lowest) >= -largest and float(highest) <= largest:
        return
    bounded = largest <= torch.finfo(value.dtype).max
    finite = value.abs() <= largest if bounded else torch.isfinite(value)
    allowed = finite | (value == torch.inf) if allow_infinite else finite
    if bool(allowed.all()):
        return
    where_bad = (~allowed).nonzero()[0].tolist()
    rule = "hold finite costs" + (" (+inf = forbidden is allowed)" if allow_infinite else "")
    if bounded:
        rule += f" of at most {largest:g}"
    received = f"{float(value[tuple(where_bad)])} at index {where_bad}"
    raise ValueError(message(where, argument, rule, received, cure))


def indices(where: str, argument: str, edges: Tensor, counts: Tensor | None, limits: Tensor | int) -> None:
    """Checks that the first `counts[b]` edges (b, e, 2) of every problem hold node indices in [0, limits[b])."""
    if edges.numel() == 0 or _device.resident(edges):
        return
    limit = limits if isinstance(limits, int) else limits[:, None, None]
    bad = (edges < 0) | (edges >= limit)
    if counts is not None:
        bad = bad & (torch.arange(edges.shape[-2], device=edges.device)[:, None] < counts[:, None, None])
    if not bool(bad.any()):
        return
    place = bad.nonzero()[0].tolist()
    largest = limits if isinstance(limits, int) else int(limits[place[0]])
    received = f"{int(edges.expand(bad.shape)[tuple(place)])} at index {place}"
    raise ValueError(
        message(where, argument, f"hold node indices in [0, {largest})", received, "Check the graph's edges.")
    )


def unmatched_cost(where: str, value: object) -> None:
    """Checks the cost of an unmatched node: None or a finite number."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(
            message(
                where, "unmatched_cost", "be None or a number", describe(value), "None demands a complete matching."
            )
        )
    if not abs(value) <= LARGEST_COST:
        raise ValueError(
            message(where, "unmatched_cost", "be finite", value, "None demands a complete matching, 0.0 makes it free.")
        )


def memory(where: str, bytes_needed: int, cure: str, device: torch.device | None = None) -> None:
    """Refuses work that needs more memory than is free, before the system kills the process for it.

    A GPU tells by itself, and does not kill.
    """
    if (device is not None and device.type != "cpu") or torch.compiler.is_compiling():
        return
    if bytes_needed <= min(_physical_memory(), _ALWAYS_FREE):
        return
    available = available_memory()
    if bytes_needed > available:
        rule = f"fit into the {_bytes(available)} of memory that are free"
        raise ValueError(message(where, "the problem", rule, f"{_bytes(bytes_needed)} to allocate", cure))


def available_memory() -> int:
    """Returns how many bytes this process may still take: what the machine, its container and its limits leave."""
    rooms = [_physical_memory()]
    rooms += [int(line.split()[1]) * 1024 for line in _lines("/proc/meminfo") if line.startswith("MemAvailable:")]
    for line in _lines("/proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            rooms += _container_rooms(Path("/sys/fs/cgroup"), path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            rooms += _container_rooms(Path("/sys/fs/cgroup/memory"), path, *names)
    for line in _lines("/proc/self/statm"):
        limit = _address_space()
        if limit is not None:
            rooms.append(limit - int(line.split()[0]) * os.sysconf("SC_PAGE_SIZE"))
    return max(min(rooms), 0)


def _physical_memory() -> int:
    if not hasattr(os, "sysconf"):
        return sys.maxsize  # Windows, which promises no memory that it does not have
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _address_space() -> int | None:
    """Returns the limit of this process's address space, in bytes; None without one."""
    with contextlib.suppress(ImportError):  # there is none on Windows
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        return None if limit == resource.RLIM_INFINITY else limit
    return None


def _container_rooms(root: Path, path: str, limit_name: str, used_name: str, reclaimable_name: str) -> list[int]:
    """Returns what each limit on the way from the root to a control group leaves; pages of read files can go."""
    rooms = []
    parts = PurePosixPath(path.strip().lstrip("/")).parts
    for depth in range(len(parts) + 1):
        folder = root.joinpath(*parts[:depth])
        limit, used = ([*_lines(folder / name), "max"][0].strip() for name in (limit_name, used_name))
        if limit.isdigit() and used.isdigit():
            fields = (line.split() for line in _lines(folder / "memory.stat"))
            reclaimable = next((int(count) for name, count in fields if name == reclaimable_name), 0)
            rooms.append(int(limit) - int(used) + reclaimable)
    return rooms


def _lines(path: str | Path) -> list[str]:
    """Returns the lines of a file of the system, none where it has no such file."""
    try:
        return Path(path).read_text(encoding="ascii").splitlines()
    except OSError:
        return []


def _bytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB ({count} bytes)"


def option(where: str, argument: str, value: float, holds: bool, rule: str, cure: str) -> None:
    """Checks one option of a solver, an estimator or a layer."""
    if not holds:
        raise ValueError(message(where, argument, rule, repr(value), cure))


def whole_number(where: str, argument: str, value: Any, cure: str) -> int:
    """Checks that a value is a whole number, of any library, that fits into 64 bits, and returns it."""
    try:
        number = value if isinstance(value, int) else operator.index(value)
    except TypeError:
        raise TypeError(message(where, argument, "be a whole number", describe(value), cure)) from None
    option(where, argument, number, -(2**63) <= number < 2**63, "fit into 64 bits", "Take a smaller number.")
    return number


def number(where: str, argument: str, value: Any, cure: str) -> None:
    """Checks that a value is one number, of any library, that a double can hold; NaN is one, a bool is none."""
    try:
        if isinstance(value, SupportsFloat) and not isinstance(value, bool):
            float(value)
            return
    except OverflowError:
        option(where, argument, value, False, "fit into a float", "Take a smaller number.")
    except (TypeError, ValueError, RuntimeError):  # tensors and arrays of several numbers
        pass
    raise TypeError(message(where, argument, "be a number", describe(value), cure))


def numbers(options: Any) -> None:
    """Checks that options of a dataclass that are declared as int are whole numbers that native code can take.

    Those declared as float are numbers. What else must hold is compared afterwards.
    """
    where = type(options).__name__
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        kind = str(field.type).removesuffix(" | None")
        if value is None and kind != field.type:
            continue
        if kind == "int":
            whole_number(where, field.name, value, "Convert it with int().")
        elif kind == "float":
            number(where, field.name, value, f"{field.default} is the default.")


def budget(where: str, max_gap: float, time_limit: float | None) -> None:
    """Checks the two options that end a search early."""
    number(where, "max_gap", max_gap, "Try 1e-6.")
    if time_limit is not None:
        number(where, "time_limit", time_limit, "None is no limit.")
        option(where, "time_limit", time_limit, time_limit > 0, "be positive seconds", "None is no limit.")
    option(where, "max_gap", max_gap, 0 <= max_gap < torch.inf, "be at least 0", "Try 1e-6.")
