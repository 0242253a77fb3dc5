"""flow_warp: csrc/cuda/flow_warp.cu and flow_warp_backward.cu, tiles as csrc/include/cbtalk/cuda/flow_warp_pixel.h."""

from torch import Tensor

from bench.launches.launch import WARP, Launch, Loop, bytes_of, dtype_name

_FLOAT = 4


def launches(direction: str, inputs: tuple[Tensor, ...]) -> list[Launch]:
    """Forward, or forward and backward; the flow and the occlusion are given."""
    feature, *maps = inputs
    pixels_last = feature.stride(1) == 1
    found = [_pixels(*inputs) if pixels_last else _planes(*inputs)]
    if direction == "fwd":
        return found
    gradient = feature.numel() * _FLOAT
    found += [
        Launch("gradient filled with zeros", gradient),
        _pixels_backward(*inputs) if pixels_last else _planes_backward(*inputs),
    ]
    if maps[0].shape[1:3] != feature.shape[2:]:
        found += [_sum_over_readers(feature, maps[0], 2), _sum_over_readers(feature, maps[1], 1)]
    if feature.element_size() != _FLOAT:
        found.append(Launch("gradient rounded", gradient + bytes_of(feature)))
    return found


def _taps(feature: Tensor, flow: Tensor) -> dict[str, float]:
    """Of a pixel: x, y and occlusion, each resized from four elements, or read."""
    return {"LDG": 3 if flow.shape[1:3] == feature.shape[2:] else 12}


def _lanes(vectors: int) -> int:
    """Of the group that works on a pixel."""
    return next(lanes for lanes in (4, 8, 16, 32) if lanes >= min(vectors, WARP))


def _pixels(feature: Tensor, flow: Tensor, occlusion: Tensor) -> Launch:
    """A warp takes 32 / lanes pixels at a time; each lane its vectors of them, a read of four taps and a write."""
    B, C, H, W = feature.shape
    vector = 16 // feature.element_size()
    lanes = _lanes(C // vector)
    each = C // vector // lanes  # vectors of a lane
    tile = 16 if C // vector > WARP else 8 * (4 if lanes == WARP else 8)
    warps = B * H * W / tile * 8
    return Launch(
        f"flow_warp: warp_pixels_fwd_kernel<{dtype_name(feature.dtype)}, {vector}>",
        2 * bytes_of(feature) + bytes_of(flow, occlusion),
        "16 bytes of a pixel", feature.numel() / vector, warps,
        (Loop({"LDS": 2, "LDG.E.128": 4 * each, "STG.E.128": each}, tile * lanes / 256),),
        (Loop({"STS": 2, **_taps(feature, flow)}, tile / 256),),
    )  # fmt: skip


def _slices(feature: Tensor) -> int:
    """Warps that share the channels of the same pixels."""
    B, C, H, W = feature.shape
    slices = 8
    while slices > 1 and (8 * slices > C or B * H * W * slices >= 2 * 132 * 2048):
        slices //= 2
    return slices


def _planes(feature: Tensor, flow: Tensor, occlusion: Tensor) -> Launch:
    """A lane takes a pixel; an iteration is four of its channels: four taps read and an element written for each."""
    B, C, H, W = feature.shape
    slices = _slices(feature)
    return Launch(
        f"flow_warp: warp_planes_fwd_kernel<{dtype_name(feature.dtype)}>",
        2 * bytes_of(feature) + bytes_of(flow, occlusion),
        "element", feature.numel(), B * H * W / WARP * slices,
        (Loop({"LDG": 16, "STG": 4}, C / slices / 4),),
    )  # fmt: skip


def _backward_bytes(feature: Tensor, flow: Tensor, occlusion: Tensor) -> float:
    """Feature and arriving gradient read; the float32 gradient, filled with zeros before, read and written back."""
    pixels = feature.numel() // feature.shape[1]
    return 2 * bytes_of(feature) + 2 * _FLOAT * feature.numel() + bytes_of(flow, occlusion) + 3 * _FLOAT * pixels


def _pixels_backward(feature: Tensor, flow: Tensor, occlusion: Tensor) -> Launch:
    """A group of lanes takes a run of 8 pixels, an iteration each; taps that move on by one pixel are two additions."""
    B, C, H, W = feature.shape
    vector = 16 // feature.element_size()
    lanes = _lanes(C // vector)
    tile = 8 * 128 // lanes
    runs = 8 * (C // vector // lanes)
    further = (lanes // 4).bit_length() - 1  # steps of the sum over the lanes beyond the first two
    sums = (Loop({"SHFL": 1}, runs * further),) if further else ()
    return Launch(
        f"flow_warp_backward: warp_pixels_bwd_kernel<{dtype_name(feature.dtype)}, {vector}, 1, 1>",
        _backward_bytes(feature, flow, occlusion),
        "16 bytes of a pixel", feature.numel() / vector, B * H * W / tile * 4,
        (Loop({"LDG.E.128": 5, "RED": vector // 2, "SHFL": 3}, runs), *sums),
        (Loop({"STS": 5, **_taps(feature, flow)}, tile / 128), Loop({"STG": 3, **_taps(feature, flow)}, tile / 128)),
    )  # fmt: skip


def _planes_backward(feature: Tensor, flow: Tensor, occlusion: Tensor) -> Launch:
    """A lane takes a pixel; an iteration is two of its channels: five reads and four additions for each."""
    B, C, H, W = feature.shape
    slices = _slices(feature)
    return Launch(
        f"flow_warp_backward: warp_planes_bwd_kernel<{dtype_name(feature.dtype)}, 1, 1>",
        _backward_bytes(feature, flow, occlusion),
        "element", feature.numel(), B * H * W / WARP * slices,
        (Loop({"LDG": 10, "RED": 8}, C / slices / 2),),
    )  # fmt: skip


def _sum_over_readers(feature: Tensor, of_map: Tensor, parts: int) -> Launch:
    """A warp sums one element of a map over the pixels that may read it, 8 columns of 4 rows an iteration."""
    pixels, elements = feature.numel() // feature.shape[1], of_map.numel() // parts
    small = of_map.shape[1 if parts == 2 else 2]
    across = readers_across(feature.shape[-1], small)
    columns, rows = -(-across // 8), -(-across // 4)
    return Launch(
        f"flow_warp_backward: warp_map_bwd_kernel<{parts}>",
        _FLOAT * parts * pixels + bytes_of(of_map),
        "pixel that may read an element", across**2 * elements, elements,
        (Loop({"LDG": 1}, columns * rows), Loop({"LDG": 1}, columns, outer=1)),
    )  # fmt: skip


def readers_across(pixels: int, elements: int) -> float:
    """The pixels of a row that may read an element of a smaller map; borders are ignored."""
    # To the elements beside it and a margin beyond: resize_readers in flow_warp_pixel.h, _resize_readers in Triton.
    return 2 * (pixels - 1) / (elements - 1) + 4
