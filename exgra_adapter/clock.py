"""Where the time of a training step goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

import graphmatch as gm


class PhaseClock:
    """Adds up the seconds of named phases; a phase inside another one is taken out of it.

    Args:
        device: A GPU is waited for at both ends of a phase, or the phase would only time the queue.

    Example:
        >>> clock = PhaseClock(torch.device("cpu"))
        >>> with clock.phase("forward"):
        ...     with clock.phase("solve"):
        ...         pass
        >>> sorted(clock.take())
        ['forward', 'solve']
    """

    def __init__(self, device: torch.device) -> None:
        self.enabled = True
        self._device = device
        self._seconds: dict[str, float] = {}
        self._open: list[tuple[str, float]] = []

    def now(self) -> float:
        """Returns the time in seconds, once the device is done."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def add(self, name: str, seconds: float) -> None:
        """Adds seconds to a phase."""
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def start(self, name: str) -> None:
        """Begins a phase."""
        if not self.enabled:
            return
        now = self.now()
        if self._open:
            outer, since = self._open[-1]
            self.add(outer, now - since)
        self._open.append((name, now))

    def stop(self) -> None:
        """Ends the phase that began last."""
        if not self._open:
            return
        now = self.now()
        name, since = self._open.pop()
        self.add(name, now - since)
        if self._open:
            self._open[-1] = (self._open[-1][0], now)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times what runs inside."""
        self.start(name)
        try:
            yield
        finally:
            self.stop()

    @contextmanager
    def timing_matchings(self, objective: nn.Module | None) -> Iterator[None]:
        """Times the matching layers of an objective as phase "solve" until the context ends."""
        layers = (
            [] if objective is None else [each for each in objective.modules() if isinstance(each, gm.MatchingLayer)]
        )
        handles = [layer.register_forward_pre_hook(lambda *_: self.start("solve")) for layer in layers]
        handles += [layer.register_forward_hook(lambda *_: self.stop()) for layer in layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def take(self) -> dict[str, float]:
        """Returns the seconds of all phases so far and starts anew."""
        taken, self._seconds = self._seconds, {}
        return taken
