"""Ways to time a solver on several instances."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from statistics import median
from typing import Any

import pytest
import torch

from graphmatch._native import cpu as native


def over_cases(
    benchmark: Any, target: Callable[..., Any], cases: Sequence[tuple[Any, ...]], repeats: int = 5
) -> list[float]:
    """Times `target` on one case after the other, `repeats` times: the median of a row is one over the cases.

    Where it is repeated, the first pass warms up.

    Returns:
        Seconds of every case, its median.
    """
    rounds = cycle(cases)
    warmup = len(cases) if repeats > 1 else 0
    benchmark.pedantic(target, setup=lambda: (next(rounds), {}), rounds=repeats * len(cases), warmup_rounds=warmup)
    seconds = benchmark.stats.stats.data
    return [median(seconds[place :: len(cases)]) for place in range(len(cases))]


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Gives PyTorch, and with it solvers that ask for no other number, so many threads until the block ends."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class NativeClock:
    """A clock that runs only inside the compiled solver: what remains when Python's share is taken away."""

    def __init__(self) -> None:
        self.elapsed = 0.0

    def __call__(self) -> float:
        """Returns the seconds spent inside so far."""
        return self.elapsed

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Counts the calls of the compiled solver until the block ends."""
        solve = native.lawler_solve

        def watched(*arguments: Any) -> Any:
            start = time.perf_counter()
            answer = solve(*arguments)
            self.elapsed += time.perf_counter() - start
            return answer

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "lawler_solve", watched)
            yield
