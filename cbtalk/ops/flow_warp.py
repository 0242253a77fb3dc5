"""Warping a feature map by a flow."""

from torch import Tensor

import cbtalk.reference.flow_warp as reference


def flow_warp(
    feature: Tensor,
    flow: Tensor,
    occlusion: Tensor | None = None,
    *,
    size: tuple[int, int] | None = None,
    align_corners: bool = True,
    backend: str = "auto",
) -> Tensor:
    return reference.flow_warp(feature, flow, occlusion, size=size, align_corners=align_corners)
