"""flow_warp against what the released model's own code does: interpolate, grid_sample, interpolate, multiply."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bench import work
from bench.case import BATCHES, Case, Inputs, Judge, Prepare, Setting, Thunk, judge_by, timed
from bench.peers import COMPILED, compiled, package
from cbtalk.ops import flow_warp
from cbtalk.ops.examples import named
from cbtalk.reference import flow_warp as reference

# (C, size): the three scales at which the paper's model warps most.
PAPER = [(64, 256), (128, 128), (256, 64)]
# On a GPU also a flow that points anywhere: neighbouring pixels share no taps, in the caches or in the sums.
ROUGH = PAPER[0]
SWEEP = [*((B, 128, 128) for B in BATCHES), (3, 67, 61)]  # (B, C, size)
SHOWN = [("NCHW", "fwd"), ("channels_last", "fwd"), ("channels_last", "bwd")]  # by README, of the first size
LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


def cases(setting: Setting) -> list[Case]:
    """Each size in both memory formats, forward and with gradients; the flow is smooth, as a moving head gives it."""
    smooth = [
        _case(setting, sizes, layout, direction)
        for sizes in (SWEEP if setting.sweep else [(setting.batch, *sizes) for sizes in PAPER])
        for layout in LAYOUTS
        for direction in ("fwd", "bwd")
    ]
    if setting.device != "cuda":
        return smooth
    return smooth + [_case(setting, (setting.batch, *ROUGH), "channels_last", way, True) for way in ("fwd", "bwd")]


def _case(setting: Setting, sizes: tuple[int, int, int], layout: str, direction: str, rough: bool = False) -> Case:
    B, C, size = sizes
    elements = B * C * size * size
    return Case(
        "flow_warp", f"({B}, {C}, {size}, {size}) {layout}{', rough flow' if rough else ''}", direction,
        partial(_inputs, setting, sizes, LAYOUTS[layout], rough),
        timed(flow_warp, direction),
        _peers(direction),
        partial(_judge, direction),
        # forward: the feature read, the output written; backward: the gradient and the feature read, one written
        work.images(2 if direction == "fwd" else 5, elements, setting.dtype),
        ("interpolate + grid_sample",) if (C, size) == PAPER[0] and (layout, direction) in SHOWN and not rough else (),
    )  # fmt: skip


def _inputs(
    setting: Setting, sizes: tuple[int, int, int], layout: torch.memory_format, rough: bool, generator: torch.Generator
) -> Inputs:
    B, C, size = sizes
    make = named("flow_warp").make
    feature, flow, occlusion = make(
        generator, setting.dtype, batch=B, channels=C, height=size, width=size, flow_size=64
    )
    if rough:
        flow = flow + 0.1 * torch.randn(flow.shape, generator=generator, device=flow.device)
    return feature.contiguous(memory_format=layout), flow, occlusion


def _peers(direction: str) -> dict[str, Prepare | str]:
    return {
        "interpolate + grid_sample": timed(_eager, direction),
        COMPILED: compiled(_eager, direction),
        "kornia remap": package("kornia", "kornia", partial(_kornia, direction)),
    }


def _resized(flow: Tensor, occlusion: Tensor, size: torch.Size) -> tuple[Tensor, Tensor]:
    grid = F.interpolate(flow.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=True).permute(0, 2, 3, 1)
    return grid, F.interpolate(occlusion, size=size, mode="bilinear", align_corners=True)


def _eager(feature: Tensor, flow: Tensor, occlusion: Tensor) -> Tensor:
    grid, visible = _resized(flow, occlusion, feature.shape[2:])
    # grid_sample wants one dtype
    return (F.grid_sample(feature.to(grid.dtype), grid, align_corners=True) * visible).to(feature.dtype)


def _kornia(direction: str, *inputs: Tensor) -> Thunk:
    from kornia.geometry.transform import remap

    def warp(feature: Tensor, flow: Tensor, occlusion: Tensor) -> Tensor:
        grid, visible = _resized(flow, occlusion, feature.shape[2:])
        x, y = grid.unbind(-1)
        warped = remap(feature.to(grid.dtype), x, y, align_corners=True, normalized_coordinates=True)
        return (warped * visible).to(feature.dtype)

    return timed(warp, direction)(*inputs)


def _judge(direction: str, inputs: Inputs) -> Judge:
    """Sampling positions in float32 are off by 2^-24 of the image's size, which 30 tolerances cover.

    The gradient of the flow jumps from pixel to pixel: a position that rounding moves across counts as wrong there.
    """
    exact = timed(reference.flow_warp, direction)(*(x.double() for x in inputs))()
    float32 = inputs[0].dtype == torch.float32
    return judge_by(exact, inputs[0].dtype, scales=(30, 30, 3e4, 30) if float32 else (1, 1, 10, 1))
