"""The least work of a call: bytes to move, operations, exponentials. Each op's is in bench/ops/<op>.py."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Work:
    """Of one call: each input read once, each output written once; multiplications and additions at the named rate."""

    bytes: float
    operations: float = 0.0
    rate: str = "float32"  # the field of Ceilings that the operations go by
    exponentials: float = 0.0


def product_rate(dtype: torch.dtype, device: str) -> tuple[str, int]:
    """The rate of products that keep the dtype's precision, and how many products one of them takes.

    Tensor cores have no float32: three products of TF32 are one of float32.
    """
    if dtype != torch.float32:
        return "bfloat16", 1
    return ("tf32", 3) if device == "cuda" else ("float32", 1)


def images(number: int, elements: float, dtype: torch.dtype) -> Work:
    """Ops that the memory alone holds up: so many images of so many elements read or written."""
    return Work(number * elements * dtype.itemsize)
