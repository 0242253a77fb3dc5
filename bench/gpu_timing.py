"""Times GPU work: in a CUDA graph or without, the second-level cache flushed before each call, by device events."""

from functools import cache

import torch
from torch import Tensor

from bench.case import Thunk
from bench.timing import Timing, summary
from cbtalk.model.cuda_graphs import captured

_FLUSH_BYTES = 256 << 20  # several times the second-level cache of an H200
_REPLAYS = 31


@cache
def _other_memory(device: str = "cuda") -> Tensor:
    return torch.zeros(_FLUSH_BYTES // 4, device=device)


def flush(other: Tensor | None = None) -> None:
    """Replaces what is in the second-level cache by reading `other`, memory that is several times as large.

    Reading, not writing: lines that were written would be written back to memory while the next call is timed.
    """
    (_other_memory() if other is None else other).sum()


def event_clock(thunk: Thunk) -> float:
    """Seconds of a call between two events of the device, its second-level cache flushed ahead."""
    flush()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    thunk()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def measure(thunk: Thunk, replays: int = _REPLAYS) -> Timing:
    """Seconds a replay."""
    replay = captured(thunk, torch.device("cuda"))[0].replay
    return summary([event_clock(replay) for _ in range(replays)])


def measure_eager(thunk: Thunk, replays: int = _REPLAYS) -> Timing:
    """Seconds a call without a graph: what a peer that cannot be captured takes, and the cost of launching."""
    for _ in range(3):
        thunk()
    return summary([event_clock(thunk) for _ in range(replays)])
