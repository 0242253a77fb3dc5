"""The memory that a call allocates at its peak, beyond what is allocated when it begins."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from bench.case import Thunk


def peak_bytes(thunk: Thunk, device: str) -> int:
    """Bytes at the peak of a call, its result included; on a CPU the caller has warmed it up.

    On the CPU from the events of torch's allocator, as its profiler records them: what libraries below torch (oneDNN,
    oneMKL, FAISS) take from the system on their own is not in it.
    """
    return _of_gpu(thunk) if device == "cuda" else _of_cpu(thunk)


def _of_gpu(thunk: Thunk) -> int:
    thunk()  # compiles what is to be compiled
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = thunk()
    torch.cuda.synchronize()
    del result
    return torch.cuda.max_memory_allocated() - before


def _of_cpu(thunk: Thunk) -> int:
    with profiled_memory() as recorded:
        result = thunk()
    del result
    return max((level for _, level in recorded.levels()), default=0)


class MemoryProfile:
    """The events of torch's allocator on the CPU while the profiler recorded, in its nanoseconds."""

    def __init__(self, recorded: profile) -> None:
        self.recorded = recorded

    def _events(self) -> list[Any]:
        assert self.recorded.profiler is not None and self.recorded.profiler.kineto_results is not None
        return self.recorded.profiler.kineto_results.events()

    def levels(self) -> list[tuple[int, int]]:
        """(time, bytes allocated since the beginning) at each change."""
        changes = sorted((e.start_ns(), e.nbytes()) for e in self._events() if e.name() == "[memory]")
        return list(zip((at for at, _ in changes), accumulate(change for _, change in changes), strict=True))

    def spans(self, names: set[str]) -> list[tuple[str, int, int]]:
        """(name, begin, end) of every range of these names."""
        found = [event for event in self._events() if event.name() in names]
        return [(e.name(), e.start_ns(), e.start_ns() + e.duration_ns()) for e in found]


@contextmanager
def profiled_memory() -> Iterator[MemoryProfile]:
    """Records the block; the profile can be read behind it."""
    with quiet_profiler(), profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as recorded:
        yield MemoryProfile(recorded)


@contextmanager
def quiet_profiler() -> Iterator[None]:
    """torch's profiler writes two lines to standard error each time it runs, which here are no news."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
