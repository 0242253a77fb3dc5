"""Times GPU work: in a CUDA graph, the second-level cache flushed before each replay, by device events."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

from bench.case import Thunk
from bench.timing import Timing

_FLUSH_BYTES = 256 << 20  # several times the second-level cache of an H200
_REPLAYS = 31


def captured(thunk: Thunk) -> torch.cuda.CUDAGraph:
    """The thunk as a graph, after three calls outside it on a stream of their own, as torch advises."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            thunk()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        thunk()
    return graph


def measure(thunk: Thunk, replays: int = _REPLAYS) -> Timing:
    """Seconds a replay."""
    return _events(captured(thunk).replay, replays)


def measure_eager(thunk: Thunk, replays: int = _REPLAYS) -> Timing:
    """Seconds a call without a graph: what a peer that cannot be captured takes, and the cost of launching."""
    for _ in range(3):
        thunk()
    return _events(thunk, replays)


def _events(function: Callable[[], object], replays: int) -> Timing:
    flush = torch.empty(_FLUSH_BYTES, dtype=torch.int8, device="cuda")
    samples = []
    for _ in range(replays):
        flush.zero_()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        function()
        end.record()
        end.synchronize()
        samples.append(begin.elapsed_time(end) / 1e3)
    samples.sort()
    last = len(samples) - 1
    return Timing(median(samples), samples[round(0.2 * last)], samples[round(0.8 * last)], len(samples))


def peak_bytes(thunk: Thunk) -> int:
    """Bytes that the call allocates at its peak, beyond what is allocated when it begins."""
    thunk()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = thunk()
    torch.cuda.synchronize()
    del result
    return torch.cuda.max_memory_allocated() - before


@dataclass(frozen=True)
class Ceilings:
    """What this GPU was measured to do: bytes a second, operations a second, exponentials a second (counted)."""

    copy: float  # bytes read and written
    float32: float  # of a product without TF32
    tf32: float
    bfloat16: float
    exponentials: float  # 16 a clock and multiprocessor, at the highest clock


def measure_ceilings() -> Ceilings:
    """A large copy and three large products."""
    source = torch.empty(1 << 30, dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    copy = 2 * source.numel() / measure(lambda: target.copy_(source)).median
    return Ceilings(
        copy=copy,
        float32=_product_rate(torch.float32, tf32=False),
        tf32=_product_rate(torch.float32, tf32=True),
        bfloat16=_product_rate(torch.bfloat16, tf32=False),
        exponentials=16.0 * torch.cuda.get_device_properties(0).multi_processor_count * highest_clock(),
    )


def _product_rate(dtype: torch.dtype, tf32: bool, size: int = 8192) -> float:
    a, b = (torch.randn(size, size, device="cuda").to(dtype) for _ in range(2))
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        return 2 * size**3 / measure(lambda: a @ b, replays=9).median
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def highest_clock() -> float:
    """Hz of the multiprocessors at most, as the driver says."""
    command = ["nvidia-smi", "--query-gpu=clocks.max.sm", "--format=csv,noheader,nounits", "--id=0"]
    return 1e6 * float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
