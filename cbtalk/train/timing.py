"""Seconds of each part of a step, by events on a GPU, so that measuring makes nobody wait."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cbtalk import ranges


class PartTimer:
    """Adds up the seconds of named parts until they are read."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.seconds: dict[str, float] = {}
        self.events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts what happens inside as `name`; on a GPU, what is queued inside."""
        with ranges.range(name):
            if self.on_gpu:
                start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                start.record()
                yield
                end.record()
                self.events.append((name, start, end))
            else:
                before = time.perf_counter()
                yield
                self._add(name, time.perf_counter() - before)

    def read(self) -> dict[str, float]:
        """Seconds of each part since the last reading; on a GPU, waits for what has been queued."""
        for name, start, end in self.events:
            end.synchronize()
            self._add(name, start.elapsed_time(end) / 1000)
        seconds, self.seconds, self.events = self.seconds, {}, []
        return seconds

    def _add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
