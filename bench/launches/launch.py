"""One launch of a kernel: its warps, the loops that these go through, its items, and the bytes that it moves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from bench.triton_code import Call

WARP = 32  # lanes


@dataclass(frozen=True)
class Loop:
    """A loop of a kernel, told by the instructions that an iteration has (`bench.gpu_ways`).

    Attributes:
        marks: beginnings of instructions, and how many of each.
        iterations: of one warp; a fraction where some warps of a block take one more than others.
        outer: which of the loops around it; such a one counts without what the innermost has.
    """

    marks: Mapping[str, float]
    iterations: float
    outer: int = 0


@dataclass(frozen=True)
class Launch:
    """A kernel by the name that bench.gpu_code gives it, or of Triton, or a fill or a copy by torch: only bytes.

    Attributes:
        item: what it makes, in words, and `items`: how many.
        hot: the loops that make the items, or, where `straight`, the marks of the whole kernel, which has none.
        others: loops that prepare for them.
        bytes: read and written, each tensor once.
        products: rate of its products by mma.sync, a field of bench.ceilings.Ceilings.
        build: what Triton compiles.
    """

    kernel: str
    bytes: float
    item: str = ""
    items: float = 0.0
    warps: float = 0.0
    hot: tuple[Loop, ...] = ()
    others: tuple[Loop, ...] = ()
    straight: bool = False
    products: str = "bfloat16"
    build: "Call | None" = None


def dtype_name(dtype: torch.dtype) -> str:
    """The dtype as the names of kernels have it."""
    return str(dtype).removeprefix("torch.")


def bytes_of(*tensors: Tensor) -> float:
    """All of them, each once."""
    return float(sum(x.numel() * x.element_size() for x in tensors))
