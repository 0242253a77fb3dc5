"""What each op has to do at least: bytes to move, operations, exponentials. The floors of bench.run and bench.gpu."""

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


def pictures(number: int, elements: float, dtype: torch.dtype) -> Work:
    """Ops that the memory alone holds up: so many pictures of so many elements read or written."""
    return Work(number * elements * dtype.itemsize)


def attention(
    queries: int, codes: int, d: int, *, rows: float, products: int, dtype: torch.dtype, device: str = "cpu"
) -> Work:
    """Attention of `queries` (batch and heads counted) to `codes` codes of size d.

    Args:
        rows: elements of all tensors read or written.
        products: of queries x codes x d. 2 forward (scores, values); backward 4 that keep what was computed ahead (for
            the values, the weights, the queries, the keys), 5 that compute the scores anew.
    """
    rate, times = product_rate(dtype, device)
    if d < 16 and device == "cuda":
        rate, times = "float32", 1  # too short for tensor cores
    pairs = queries * codes
    return Work(rows * dtype.itemsize, 2.0 * products * d * pairs * times, rate, pairs)


def nearest_code(N: int, K: int, D: int, *, passes: int = 1, device: str = "cpu") -> Work:
    """One product of all rows with all codes; `passes` times the rows and the codes are read or written."""
    rate, times = product_rate(torch.float32, device)
    return Work(4.0 * passes * (N + K) * D + 12.0 * N, 2.0 * N * K * D * times, rate)


def conv3x3(B: int, C: int, out: int, size: int, *, upsample: bool, dtype: torch.dtype, device: str = "cpu") -> Work:
    """By minimal filtering as cbtalk does it, its transforms not counted: a floor of this algorithm, not of all.

    F(4 x 4, 3 x 3) takes 36 products for 16 outputs, instead of 144; from 32 x 32 on. Below, F(2 x 2, 3 x 3) takes 16
    for 4, instead of 36; behind an enlargement by two 9 of these are left.
    """
    rate, times = product_rate(dtype, device)
    products = 9 if upsample else 36 / 16 if size >= 32 else 16 / 4  # for each input pixel
    pixels = B * size * size
    elements = pixels * (C + out * (4 if upsample else 1)) + 9 * C * out
    return Work(elements * dtype.itemsize, 2.0 * products * C * out * pixels * times, rate)
