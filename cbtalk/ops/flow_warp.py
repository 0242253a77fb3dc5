"""Warping a feature map by a flow: resize flow and occlusion, sample, occlude, in one pass over the feature."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cbtalk import _native
from cbtalk.ops.backends import choose
from cbtalk.reference import flow_warp as reference

torch.library.define(
    "cbtalk::flow_warp",
    "(Tensor feature, Tensor flow, Tensor? occlusion, SymInt height, SymInt width, bool align_corners) -> Tensor",
)
torch.library.define(
    "cbtalk::flow_warp_backward",
    "(Tensor grad_output, Tensor feature, Tensor flow, Tensor? occlusion, bool align_corners, "
    "bool need_feature, bool need_flow, bool need_occlusion) -> (Tensor, Tensor, Tensor)",
)

# The kernels address a picture with 32-bit offsets.
_MAX_EXTENT = 2**31


def flow_warp(
    feature: Tensor,
    flow: Tensor,
    occlusion: Tensor | None = None,
    *,
    size: tuple[int, int] | None = None,
    align_corners: bool = True,
    backend: str = "auto",
) -> Tensor:
    """Sample a feature map where a flow points, and multiply by an occlusion map.

    Flow and occlusion are resized to the output's size (bilinear, corner aligned) while they are read. Sampling is
    bilinear with zero padding; a coordinate that is not finite gives zeros. Coordinates are computed in float32 or
    wider whatever the dtype of the feature.

    Args:
        feature: (B, C, H, W), contiguous or channels_last; also slices and expanded batches of these, without a copy.
        flow: (B, h, w, 2), or (B, N, h, w, 2) to sample each source by N flows; (x, y) in [-1, 1].
        occlusion: (B, 1, h', w') or None; shared by the N flows.
        size: (Ho, Wo) of the output; by default that of the feature.
        align_corners: whether -1 and 1 are the centres of the feature's corner pixels, or their outer edges.
        backend: "auto", "cpp" or "reference".

    Returns:
        (B, C, Ho, Wo), or (B, N, C, Ho, Wo), in the dtype of the feature. In its memory format too: for a
        channels_last feature the (B*N, C, Ho, Wo) view of the result is channels_last.

    Raises:
        ValueError: shapes or dtypes that do not fit together.
        BackendError: the backend asked for cannot run; the message is the reason.
    """
    height, width = feature.shape[-2:] if size is None else size
    _check(feature, flow, occlusion, height, width)
    name = choose(backend, [("cpp", why_not_cpp(feature, flow, occlusion)), ("reference", None)])
    if name == "reference":
        return reference.flow_warp(feature, flow, occlusion, size=(height, width), align_corners=align_corners)
    flows = flow if flow.dim() == 5 else flow[:, None]
    if occlusion is not None:
        occlusion = occlusion.float()
    warped: Tensor = _FlowWarp.apply(feature, flows.float(), occlusion, height, width, align_corners)
    return warped.unflatten(0, flow.shape[:2]) if flow.dim() == 5 else warped


def why_not_cpp(feature: Tensor, flow: Tensor, occlusion: Tensor | None = None) -> str | None:
    """Why the C++ kernel cannot take these arguments, or None."""
    if (reason := _native.why_not_cpp()) is not None:
        return reason
    given = [("feature", feature), ("flow", flow)] + ([] if occlusion is None else [("occlusion", occlusion)])
    for name, tensor in given:
        if tensor.device.type != "cpu":
            return f"{name} is on {tensor.device}, not on the CPU"
        if tensor.dtype not in (torch.float32, torch.bfloat16):
            return f"{name} is {tensor.dtype}, not float32 or bfloat16"
    stride = feature.stride()
    if stride[1] != 1 and stride[3] != 1:
        return f"feature has strides {tuple(stride)}: neither its rows nor its channels are contiguous"
    extent = sum((n - 1) * step for n, step in zip(feature.shape[1:], stride[1:], strict=True))
    if extent >= _MAX_EXTENT:
        return "one picture of feature spans 2^31 elements or more"
    return None


def _check(feature: Tensor, flow: Tensor, occlusion: Tensor | None, height: int, width: int) -> None:
    if feature.dim() != 4 or 0 in feature.shape[2:]:
        raise ValueError(f"feature must be (B, C, H, W) with at least one pixel, not {tuple(feature.shape)}")
    B = feature.shape[0]
    if flow.dim() not in (4, 5) or flow.shape[0] != B or flow.shape[-1] != 2 or 0 in flow.shape[1:]:
        raise ValueError(f"flow must be ({B}, h, w, 2) or ({B}, N, h, w, 2), not {tuple(flow.shape)}")
    if occlusion is not None and (
        occlusion.dim() != 4 or tuple(occlusion.shape[:2]) != (B, 1) or 0 in occlusion.shape[2:]
    ):
        raise ValueError(f"occlusion must be ({B}, 1, h, w), not {tuple(occlusion.shape)}")
    if height < 1 or width < 1:
        raise ValueError(f"size must be at least (1, 1), not ({height}, {width})")


def _fake_forward(
    feature: Tensor, flow: Tensor, occlusion: Tensor | None, height: int, width: int, align_corners: bool
) -> Tensor:
    shape = (flow.shape[0] * flow.shape[1], feature.shape[1], height, width)
    return torch.empty(
        shape, dtype=feature.dtype, device=feature.device, memory_format=reference.memory_format(feature)
    )


def _fake_backward(
    grad_output: Tensor,
    feature: Tensor,
    flow: Tensor,
    occlusion: Tensor | None,
    align_corners: bool,
    need_feature: bool,
    need_flow: bool,
    need_occlusion: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    none = torch.empty(0, device=feature.device)
    grad_feature = torch.empty(feature.shape, device=feature.device, memory_format=reference.memory_format(feature))
    return (
        grad_feature if need_feature else none,
        flow.new_empty(flow.shape) if need_flow else none.clone(),
        occlusion.new_empty(occlusion.shape) if need_occlusion and occlusion is not None else none.clone(),
    )


torch.library.register_fake("cbtalk::flow_warp", _fake_forward)
torch.library.register_fake("cbtalk::flow_warp_backward", _fake_backward)

_forward_op = torch.ops.cbtalk.flow_warp.default
_backward_op = torch.ops.cbtalk.flow_warp_backward.default


class _FlowWarp(torch.autograd.Function):
    """feature (B, C, H, W), flow (B, N, h, w, 2) float32, occlusion (B, 1, h', w') float32 -> (B*N, C, Ho, Wo)."""

    @staticmethod
    def forward(
        ctx: Any,
        feature: Tensor,
        flow: Tensor,
        occlusion: Tensor | None,
        height: int,
        width: int,
        align_corners: bool,
    ) -> Tensor:
        ctx.save_for_backward(feature, flow, occlusion)
        ctx.align_corners = align_corners
        return _forward_op(feature, flow, occlusion, height, width, align_corners)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        feature, flow, occlusion = ctx.saved_tensors
        needed = ctx.needs_input_grad[:3]
        grad_output = grad_output.contiguous(memory_format=reference.memory_format(feature))
        grads = _backward_op(grad_output, feature, flow, occlusion, ctx.align_corners, *needed)
        grad_feature, grad_flow, grad_occlusion = (
            grad if is_needed else None for grad, is_needed in zip(grads, needed, strict=True)
        )
        # Feature gradients are summed in float32 whatever the feature is, and rounded once.
        return (
            grad_feature.to(feature.dtype) if grad_feature is not None else None,
            grad_flow,
            grad_occlusion,
            None,
            None,
            None,
        )
