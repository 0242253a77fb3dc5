"""The best rates that were measured on this machine, and the floor that follows for a piece of work."""

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch

from bench.case import Thunk
from bench.gpu_timing import measure
from bench.work import Work

COPIES = [1 << power for power in range(17, 29)]  # bytes read and written together
PRODUCTS = (256, 512, 1024, 2048)  # sizes of square matrices, from resident in the L2 cache to large
EXPONENTIALS = (1 << 16, 1 << 18, 1 << 20)


class Floor(NamedTuple):
    """The least time of a piece of work here, and what sets it: "memory", "arithmetic" or "exponentials"."""

    seconds: float
    by: str


@dataclass(frozen=True)
class Ceilings:
    """Bytes a second, operations a second (two a multiply-add), exponentials a second."""

    copy: float  # bytes read and written, of a large copy
    float32: float  # of a product without TF32
    tf32: float  # float32 again on a CPU
    bfloat16: float  # and float16
    exponentials: float  # GPU: counted, 16 a clock and multiprocessor at the highest clock
    copies: tuple[tuple[int, float], ...] = ()  # CPU: (bytes, bytes a second) of smaller copies, by size

    def bandwidth(self, size: float) -> float:
        """The best of the copies that are as large as `size` or larger; the next smaller one counts as large."""
        at_or_below = [bytes_ for bytes_, _ in self.copies if bytes_ <= size]
        least = max(at_or_below, default=0)
        return max([self.copy, *(rate for bytes_, rate in self.copies if bytes_ >= least)])

    def floor(self, work: Work) -> Floor:
        """The largest of the times that the memory, the arithmetic and the exponentials need."""
        return max(
            Floor(work.bytes / self.bandwidth(work.bytes), "memory"),
            Floor(work.operations / getattr(self, work.rate), "arithmetic"),
            Floor(work.exponentials / self.exponentials, "exponentials"),
        )

    def best(self, other: "Ceilings") -> "Ceilings":
        """The higher of each, of two measurements of one machine: a neighbour's load must not lower a ceiling."""
        rates = {one.name: max(getattr(self, one.name), getattr(other, one.name)) for one in fields(self)[:-1]}
        pairs = zip(self.copies, other.copies, strict=True)
        return Ceilings(**rates, copies=tuple((size, max(one, two)) for (size, one), (_, two) in pairs))


def measure_ceilings(device: str, seconds: float = 5.0) -> Ceilings:
    """The ceilings of the CPU with the threads that torch has, in about so many seconds, or of the GPU."""
    return _of_gpu() if device == "cuda" else _of_cpu(seconds)


def _fastest(function: Thunk, seconds: float) -> float:
    """Seconds of the fastest of many calls: a ceiling is what is possible, not what is usual."""
    function()
    end = time.perf_counter() + seconds
    best = float("inf")
    while (before := time.perf_counter()) < end or best == float("inf"):
        function()
        best = min(best, time.perf_counter() - before)
    return best


def _of_cpu(seconds: float) -> Ceilings:
    share = seconds / (len(COPIES) + 2 * len(PRODUCTS) + 2 * len(EXPONENTIALS))
    copies = tuple((size, size / _fastest(_copy(size), share)) for size in COPIES)
    float32, bfloat16 = (
        max(2 * size**3 / _fastest(_product(size, dtype), share) for size in PRODUCTS)
        for dtype in (torch.float32, torch.bfloat16)
    )
    exponentials = max(
        count / _fastest(_map(function, count), share) for function in (torch.exp, torch.exp2) for count in EXPONENTIALS
    )
    return Ceilings(copies[-1][1], float32, float32, bfloat16, exponentials, copies)


def _copy(size: int) -> Thunk:
    source = torch.rand(size // 8)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _product(size: int, dtype: torch.dtype) -> Thunk:
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)


def _map(function: Callable[..., object], count: int) -> Thunk:
    x = torch.randn(count)
    out = torch.empty_like(x)
    return lambda: function(x, out=out)


def _of_gpu() -> Ceilings:
    """A large copy and three large products."""
    source = torch.empty(1 << 30, dtype=torch.int8, device="cuda").random_()
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
    """Hz of the multiprocessors at most, as nvidia-smi says, or torch; infinite where neither does.

    An infinite rate of exponentials sets no floor; those of memory and arithmetic stay.
    """
    command = ["nvidia-smi", "--query-gpu=clocks.max.sm", "--format=csv,noheader,nounits", "--id=0"]
    try:
        return 1e6 * float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    except (OSError, subprocess.CalledProcessError, ValueError):  # absent, refused, or "[N/A]"
        return 1e3 * float(getattr(torch.cuda.get_device_properties(0), "clock_rate", float("inf")))
