"""The kernels that the launchers of cbtalk.kernels.flow_warp have compiled for the model's shapes."""

import itertools

from cbtalk.kernels import flow_warp as kernels
from tests.kernels.aot import Build

_POINTERS = {
    "flow": "*fp32",
    "occlusion": "*fp32",
    "grad_feature": "*fp32",
    "grad_flow_pixels": "*fp32",
    "grad_occlusion_pixels": "*fp32",
    "pixels": "*fp32",
    "grad": "*fp32",
    "keys": "*i64",
    "order": "*i64",
    "starts": "*i64",
    "weights": "*fp32",
}
_SCALARS = [*kernels._SIZES, "nowhere", "images", "h", "w", "sources", "out_plane"]
_MAPS = {"ALIGN_CORNERS": True, "PADDING": 0, "SAME_FLOW": False, "SAME_OCCLUSION": False, "HAS_OCCLUSION": True}
_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}


def _build(
    kernel: str, dtype: str, constexprs: dict[str, object], warps: int, instructions: tuple[str, ...] = ()
) -> Build:
    images = dict.fromkeys(("feature", "output", "grad_output"), f"*{dtype}")
    signature = _POINTERS | images | dict.fromkeys(_SCALARS, "i32")
    return Build(kernel, signature, constexprs, {"num_warps": warps}, instructions)


def _image(channels: int, dtype: str, channels_last: bool, backward: bool) -> dict[str, object]:
    tile = kernels.tile_of(channels, _BYTES[dtype], channels_last, backward)
    vector = channels_last and channels % (16 // _BYTES[dtype]) == 0
    return {"C": channels, "CHANNELS_LAST": channels_last, "VECTOR": vector, **tile._asdict()}


def builds(capability: int) -> list[Build]:
    """Each kernel in float32 and 16 bits, for many and for few channels, in both layouts."""
    found = []
    wanted = {"NEED_FEATURE": True, "NEED_FLOW": True, "NEED_OCCLUSION": True}
    # Vectors are added atomically from sm_90 on.
    add = (r"(red|atom)\.[\w.]*v4\.f32",) if capability >= 90 else ()
    for channels, dtype in itertools.product((64, 256), ("fp32", "bf16")):
        forward, backward = (_MAPS | _image(channels, dtype, True, is_backward) for is_backward in (False, True))
        move = (r"ld\.global[\w.]*\.v4\.b32", r"st\.global[\w.]*\.v4\.b32")
        found.append(_build("flow_warp_fwd_kernel", dtype, forward, 4, move))
        found.append(_build("flow_warp_bwd_kernel", dtype, backward | wanted, 4, move[:1] + add))
    for padding in (1, 2):
        padded = _MAPS | {"PADDING": padding}
        found.append(_build("flow_warp_fwd_kernel", "fp32", padded | _image(64, "fp32", True, False), 4))
        found.append(_build("flow_warp_bwd_kernel", "fp32", padded | _image(64, "fp32", True, True) | wanted, 4))
    small = _image(3, "fp32", False, False)
    found.append(_build("flow_warp_fwd_kernel", "fp32", _MAPS | small | {"SAME_FLOW": True}, 4))
    found.append(_build("flow_warp_bwd_kernel", "fp32", _MAPS | _image(64, "fp32", False, True) | wanted, 4))
    found.append(_build("flow_warp_bwd_map_kernel", "fp32", {"PARTS": 2, **kernels.MAP_TILE}, 1))
    keys = {"TILE_P": kernels.KEYS_TILE.TILE_P, "TILE_W": kernels.KEYS_TILE.TILE_W}
    found.append(_build("flow_warp_bwd_keys_kernel", "fp32", _MAPS | keys, 4))
    gather = {"C": 64, "CHANNELS_LAST": True, **kernels.gather_tile(64)}
    found.append(_build("flow_warp_bwd_gather_kernel", "fp32", gather, 4))
    return found
