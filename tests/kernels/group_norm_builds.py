"""The kernels that the launchers of group_norm would have compiled for the model's shapes."""

from collections.abc import Iterator, Mapping

from cbtalk.kernels.group_norm import joining, on_chip, tiling, warps_on_chip
from tests.kernels.aot import Build

_GROUPS = 32
_LOADS = (r"ld\.global.*v4",)
_ARGUMENTS = {
    **dict.fromkeys(("weight", "bias", "mean", "rstd", "partial", "sums", "coefficients"), "*fp32"),
    **dict.fromkeys(("grad_weight", "grad_bias"), "*fp32"),
    **dict.fromkeys(("pixels", "chunks", "batch"), "i32"),
    "eps": "fp32",
}


def builds(capability: int) -> list[Build]:
    """Every kernel at the largest image, and what stays on the chip at the smallest, for 4 and 2 bytes an element."""
    return [*_cut("fp32", 64, 65536), *_cut("bf16", 64, 65536), *_whole("fp32", 4), *_whole("fp16", 2)]


def _cut(dtype: str, channels: int, pixels: int) -> Iterator[Build]:
    arguments = _images(dtype)
    tile = tiling(pixels, channels)
    kinds = {"SILU": True, "WIDTH": channels // _GROUPS, **tile, "ALIGNED": True}
    yield Build("group_norm_moments_fwd_kernel", arguments, {**tile, "ALIGNED": True}, {}, _LOADS)
    yield Build("group_norm_apply_fwd_kernel", arguments, kinds, {}, _LOADS)
    yield Build("group_norm_sums_bwd_kernel", arguments, kinds, {}, _LOADS)
    yield Build("group_norm_input_bwd_kernel", arguments, kinds, {}, _LOADS)
    if dtype == "fp32":  # what works on the sums alone
        join = joining(pixels, channels, _GROUPS, tile)
        chunk = tile["TILE_P"] * tile["TILES"]
        yield Build("group_norm_join_fwd_kernel", arguments, {"CHUNK": chunk, **join})
        yield Build("group_norm_join_bwd_kernel", arguments, join)
        yield Build("group_norm_parameters_bwd_kernel", arguments, {"C": channels, "TILE_B": 16, "TILE_C": 64})


def _whole(dtype: str, element_size: int) -> Iterator[Build]:
    for backward in (False, True):
        slab = on_chip(1024, 256, _GROUPS, element_size, backward)
        if slab is None:
            continue
        kernel = "group_norm_bwd_kernel" if backward else "group_norm_fwd_kernel"
        options = {"num_warps": warps_on_chip(slab)}
        yield Build(kernel, _images(dtype), {"SILU": True, **slab, "ALIGNED": True}, options, _LOADS)


def _images(dtype: str) -> Mapping[str, str]:
    return {**_ARGUMENTS, **dict.fromkeys(("x", "y", "grad_x", "grad_y"), f"*{dtype}")}
