"""The whole model stage by stage, as the ranges of cbtalk name them: seconds, operations, memory of each."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import bench.cases  # noqa: F401  tells the counter the operations of our ops
from bench.case import Thunk
from bench.peak import profiled_memory
from cbtalk import ranges


class Outermost:
    """A sink of ranges that reads something before and after each outermost one, and keeps both readings."""

    def __init__(self, read: Callable[[], Any]) -> None:
        self.read = read
        self.depth = 0
        self.readings: list[tuple[str, Any, Any]] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Around a range of this name."""
        self.depth += 1
        before = self.read() if self.depth == 1 else None
        try:
            yield
        finally:
            if self.depth == 1:
                self.readings.append((name, before, self.read()))
            self.depth -= 1


class Stopwatch:
    """The seconds of each stage over the calls of a thunk; stages of one name in a call are summed."""

    def __init__(self, thunk: Thunk, device: str) -> None:
        self.thunk = thunk
        self.on_gpu = device == "cuda"
        self.calls: list[dict[str, float]] = []

    def __call__(self) -> None:
        """Calls the thunk once and keeps its seconds."""
        watch = Outermost(_event if self.on_gpu else time.perf_counter)
        with ranges.watch(watch):
            self.thunk()
        if self.on_gpu:
            torch.cuda.synchronize()
        seconds: dict[str, float] = defaultdict(float)
        for name, before, after in watch.readings:
            seconds[name] += before.elapsed_time(after) / 1e3 if self.on_gpu else after - before
        self.calls.append(seconds)

    def medians(self, rounds: int) -> dict[str, float]:
        """Of each stage over the last so many calls: those before were the warm-up."""
        last = self.calls[-rounds:]
        return {name: median(call[name] for call in last) for name in last[0]}


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def stage_operations(thunk: Thunk) -> dict[str, float]:
    """Multiplications and additions of each stage in products and convolutions, those of our ops as they do them."""
    with FlopCounterMode(display=False) as counter:
        watch = Outermost(counter.get_total_flops)
        with ranges.watch(watch):
            thunk()
    operations: dict[str, float] = defaultdict(float)
    for name, before, after in watch.readings:
        operations[name] += after - before
    return operations


def stage_peaks(thunk: Thunk, device: str) -> dict[str, int]:
    """Bytes that each stage has allocated at its peak beyond what lived when it began."""
    peaks: dict[str, int] = defaultdict(int)
    if device == "cuda":
        watch = Outermost(_bytes_on_gpu)
        with ranges.watch(watch):
            thunk()
        for name, (before, _), (_, peak) in watch.readings:
            peaks[name] = max(peaks[name], peak - before)
        return peaks
    names: set[str] = set()

    def note(name: str) -> nullcontext[None]:
        names.add(name)
        return nullcontext()

    with ranges.watch(note), profiled_memory() as recorded:
        thunk()
    levels = recorded.levels()
    for name, begin, end in recorded.spans(names):
        before = next((level for at, level in reversed(levels) if at < begin), 0)
        inside = max((level for at, level in levels if begin <= at <= end), default=before)
        peaks[name] = max(peaks[name], inside - before)
    return peaks


def _bytes_on_gpu() -> tuple[int, int]:
    """Allocated now, and at the peak since the last call."""
    now, peak = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return now, peak
