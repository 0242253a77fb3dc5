"""nearest_code and vector_quantize: csrc/cuda/nearest_code*.cu, cut as nearest_code_sizes.h says.

The sort by codes ahead of the sums is torch's and not in here, nor are the lengths of the codes, which a few warps of
the first kernel take.
"""

from torch import Tensor

from bench.launches.launch import WARP, Launch, Loop, bytes_of, dtype_name

_FILE = "nearest_code"
_INDEX = 8


def launches(direction: str, inputs: tuple[Tensor, ...]) -> list[Launch]:
    """The search."""
    z, codebook = inputs
    return _search_launches(z, codebook, written=0)


def launches_quantize(direction: str, inputs: tuple[Tensor, ...]) -> list[Launch]:
    """Forward and backward; or a step of a moving average, which takes the sums of the rows of each code forward."""
    z, codebook = inputs
    if direction == "fwd":
        return _search_launches(z, codebook, written=1) + _sums(z, codebook, read=1)
    return [*_search_launches(z, codebook, written=2), _rows_backward(z), *_sums(z, codebook, read=2)]


def _search_launches(z: Tensor, codebook: Tensor, written: int) -> list[Launch]:
    """`written`: how many tensors as large as the rows the winners are written to."""
    return [_pack(z, codebook), _search(z, codebook), _winners(z, codebook, written)]


def _pack(z: Tensor, codebook: Tensor) -> Launch:
    """A warp transposes 4 rows of 32 columns, an iteration each."""
    K, D = codebook.shape
    return Launch(
        f"{_FILE}: nearest_code_pack_kernel",
        2 * 4.0 * K * D + 12.0 * len(z), "element of the codebook", K * D, K / 32 * D / 32 * 8,
        (Loop({"LDG": 1, "STS": 1}, 4), Loop({"LDS": 1, "STG": 1}, 4)),
    )  # fmt: skip


def _search(z: Tensor, codebook: Tensor) -> Launch:
    """A warp has 32 rows by 64 codes; an iteration is 16 columns of them, and after the last their comparison."""
    (N, D), K = z.shape, len(codebook)
    float32 = z.element_size() == 4
    steps, panels = K / 128 * D / 16, K / 128
    step: dict[str, float] = {"HMMA": 96 if float32 else 64, "LDG.E.128": 4 if float32 else 2, "STS.128": 4}
    pairs = {"LDG.E ": 0 if float32 else 4}  # rows of halves are read two elements at a time
    norms = {"LDG.E ": 16 + pairs["LDG.E "]}
    return Launch(
        f"{_FILE}: nearest_code_search_kernel<{dtype_name(z.dtype)}, {int(float32)}>",
        bytes_of(z) + 4.0 * K * D + 2 * 12.0 * N, "row and code", float(N) * K, N / 128 * 8,
        (Loop({**step, **pairs}, steps - panels), Loop({**step, **norms}, panels)),
        products="tf32",
    )  # fmt: skip


def _winners(z: Tensor, codebook: Tensor, written: int) -> Launch:
    """A warp settles a row an iteration, none of them in doubt, and reads its code, 32 columns at a time."""
    N, D = z.shape
    warps = min(N / 8, 1024) * 8
    more = N / warps * (D / WARP - 1)  # times 32 columns, beyond the first
    of_row = Loop({"SHFL": 10, "LDG": 9, "STG": 2 + written}, N / warps)
    lengths, reads = {"LDG": 4, "FFMA": 4}, {"LDG": 4, "FADD": 2, "FFMA": 2, "STG": 2 * written}
    return Launch(
        f"{_FILE}: nearest_code_winners_kernel",
        (2 + written) * bytes_of(z) + bytes_of(codebook) + 2 * 12.0 * N, "row", N, warps,
        (of_row, Loop(lengths, more / 4), Loop(reads, more / 2)),
    )  # fmt: skip


def _rows_backward(z: Tensor) -> Launch:
    """A warp has a row, 32 columns an iteration."""
    N, D = z.shape
    return Launch(
        f"{_FILE}_backward: nearest_code_bwd_rows_kernel",
        4 * bytes_of(z) + _INDEX * N, "element", N * D, N,
        (Loop({"LDG": 3, "STG": 1}, D / WARP),),
    )  # fmt: skip


def _sums(z: Tensor, codebook: Tensor, read: int) -> list[Launch]:
    """4 warps have 32 columns of a code, and 4 of its rows an iteration; the chunks of codes with many rows are few."""
    (N, D), K = z.shape, len(codebook)
    keys = Launch(
        f"{_FILE}_sums: code_keys_kernel", (_INDEX + 2) * N, "row", N, N / WARP,
        (Loop({"LDG": 1, "STG": 1}, 1),), straight=True,
    )  # fmt: skip
    chunks = Launch(
        f"{_FILE}_sums: sum_chunks_kernel", 2.0 * N, "row", N, N / 64 * D / 32 * 4,
        (Loop({"LDG": 2}, 1),), straight=True,
    )  # fmt: skip
    sums = Launch(
        f"{_FILE}_sums: sum_codes_kernel",
        read * bytes_of(z) + _INDEX * N + 4.0 * K * D, "element", N * D, K * D / 32 * 4,
        (Loop({"LDG": 8 if read == 1 else 16}, N / K / 4 / 4),),
    )  # fmt: skip
    return [keys, chunks, sums]
