"""Warping a feature map by a flow: resize flow and occlusion, sample, occlude, in one pass over the feature."""

from typing import Any

import torch
from torch import Tensor

from cbtalk import _native, _triton, ranges
from cbtalk.ops.backends import choose
from cbtalk.ops.kernel_op import KernelOp
from cbtalk.reference import flow_warp as reference
from cbtalk.reference.layout import in_layout_of, memory_format

_PADDINGS = ("zeros", "border", "reflection")  # by their numbers in the raw ops, which are aten's
# The kernels address an image with 32-bit offsets.
_MAX_EXTENT = 2**31


@ranges.ranged("flow_warp")
def flow_warp(
    feature: Tensor,
    flow: Tensor,
    occlusion: Tensor | None = None,
    *,
    size: tuple[int, int] | None = None,
    align_corners: bool = True,
    padding: str = "zeros",
    backend: str = "auto",
) -> Tensor:
    """Sample a feature map where a flow points, and multiply by an occlusion map.

    Flow and occlusion are resized to the output's size (bilinear, corner aligned) while they are read. Sampling is
    bilinear, with the padding modes of `torch.nn.functional.grid_sample` and their gradients; a coordinate that is not
    finite gives zeros and no gradient in each of them. Coordinates are computed in float32 or wider whatever the dtype
    of the feature. On a GPU the gradient of the feature is summed in a fixed order where
    `torch.use_deterministic_algorithms` asks for it; every other result always is.

    Args:
        feature: (B, C, H, W), contiguous or channels_last; also slices and expanded batches of these, without a copy.
        flow: (B, h, w, 2), or (B, N, h, w, 2) to sample each source by N flows; (x, y) in [-1, 1].
        occlusion: (B, 1, h', w') or None; shared by the N flows.
        size: (Ho, Wo) of the output; by default that of the feature.
        align_corners: whether -1 and 1 are the centres of the feature's corner pixels, or their outer edges.
        padding: what lies outside the feature: "zeros"; "border", its nearest pixel; or "reflection", its mirror images
            about the centres (align_corners) or the outer edges of its border's pixels. Where a coordinate is moved to
            the border, it has no gradient.
        backend: "auto", "cpp", "cuda", "triton" or "reference". "cpp" takes float32 and bfloat16 on the CPU, "cuda"
            and "triton" those and float16 on a GPU, each with the rows or the channels of the feature contiguous.
            First derivatives only; forward mode and second derivatives are what torch has for the reference.

    Returns:
        (B, C, Ho, Wo), or (B, N, C, Ho, Wo), in the dtype of the feature. In its memory format too: for a
        channels_last feature the (B*N, C, Ho, Wo) view of the result is channels_last.

    Raises:
        ValueError: shapes that do not fit together, or a padding that is none of the three.
        BackendError: the backend asked for cannot run; the message is the reason.
    """
    height, width = feature.shape[-2:] if size is None else size
    _check(feature, flow, occlusion, height, width, padding)
    chosen = choose(backend, WHY_NOT, feature, flow, occlusion)
    if chosen == "reference":
        return reference.flow_warp(
            feature, flow, occlusion, size=(height, width), align_corners=align_corners, padding=padding
        )
    flows = flow if flow.dim() == 5 else flow.unsqueeze(1)
    if occlusion is not None:
        occlusion = occlusion.float()
    number = _PADDINGS.index(padding)
    warped: Tensor = _OP(chosen, feature, flows.float(), occlusion, height, width, align_corners, number)
    return warped.unflatten(0, flow.shape[:2]) if flow.dim() == 5 else warped


def why_not_cpp(feature: Tensor, flow: Tensor, occlusion: Tensor | None = None) -> str | None:
    """The reason why the C++ kernel cannot take these arguments, or None."""
    if (reason := _native.why_not_cpp(feature, flow, occlusion)) is not None:
        return reason
    for map_name, tensor in _given(feature, flow, occlusion):
        if tensor.dtype not in (torch.float32, torch.bfloat16):
            return f"{map_name} is {tensor.dtype}, not float32 or bfloat16"
    return _why_not_layout(feature)


def why_not_cuda(feature: Tensor, flow: Tensor, occlusion: Tensor | None = None) -> str | None:
    """The reason why the CUDA C++ kernel cannot take these arguments, or None."""
    given = _given(feature, flow, occlusion)
    reason = _native.why_not_cuda(*(tensor for _, tensor in given))
    return _why_not_gpu(feature, given) if reason is None else reason


def why_not_triton(feature: Tensor, flow: Tensor, occlusion: Tensor | None = None) -> str | None:
    """The reason why the Triton kernel cannot take these arguments, or None."""
    given = _given(feature, flow, occlusion)
    reason = _triton.why_not_triton(*(tensor for _, tensor in given))
    return _why_not_gpu(feature, given) if reason is None else reason


def _given(feature: Tensor, flow: Tensor, occlusion: Tensor | None) -> tuple[tuple[str, Tensor], ...]:
    given = ("feature", feature), ("flow", flow)
    return given if occlusion is None else (*given, ("occlusion", occlusion))


def _why_not_gpu(feature: Tensor, given: tuple[tuple[str, Tensor], ...]) -> str | None:
    for name, tensor in given:
        if tensor.device != feature.device:
            return f"{name} is on {tensor.device}, feature on {feature.device}"
        if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            return f"{name} is {tensor.dtype}, not float32, float16 or bfloat16"
    return _why_not_layout(feature)


def _why_not_layout(feature: Tensor) -> str | None:
    _, channels, height, width = feature.shape
    _, plane, row, column = feature.stride()
    if plane != 1 and column != 1:
        return f"feature has strides {tuple(feature.stride())}: neither its rows nor its channels are contiguous"
    if (channels - 1) * plane + (height - 1) * row + (width - 1) * column >= _MAX_EXTENT:
        return "one image of feature spans 2^31 elements or more"
    return None


def _check(feature: Tensor, flow: Tensor, occlusion: Tensor | None, height: int, width: int, padding: str) -> None:
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
    if padding not in _PADDINGS:
        raise ValueError(f"padding must be 'zeros', 'border' or 'reflection', not {padding!r}")


def _fake_forward(
    feature: Tensor, flow: Tensor, occlusion: Tensor | None, height: int, width: int, align_corners: bool, padding: int
) -> Tensor:
    shape = (flow.shape[0] * flow.shape[1], feature.shape[1], height, width)
    return torch.empty(shape, dtype=feature.dtype, device=feature.device, memory_format=memory_format(feature))


def _fake_backward(
    grad_output: Tensor,
    feature: Tensor,
    flow: Tensor,
    occlusion: Tensor | None,
    align_corners: bool,
    padding: int,
    need_feature: bool,
    need_flow: bool,
    need_occlusion: bool,
    deterministic: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    none = torch.empty(0, device=feature.device)
    grad_feature = torch.empty(feature.shape, device=feature.device, memory_format=memory_format(feature))
    return (
        grad_feature if need_feature else none,
        flow.new_empty(flow.shape) if need_flow else none.clone(),
        occlusion.new_empty(occlusion.shape) if need_occlusion and occlusion is not None else none.clone(),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    feature, flow, occlusion, _, _, align_corners, padding = inputs
    ctx.save_for_backward(feature, flow, occlusion)
    ctx.align_corners, ctx.padding = align_corners, padding


def _backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    feature, flow, occlusion = ctx.saved_tensors
    needed = ctx.needs_input_grad[:3]
    grad_output = in_layout_of(feature, grad_output)
    deterministic = torch.are_deterministic_algorithms_enabled()
    gradients = _BACKWARD_OP(
        ctx.backend, grad_output, feature, flow, occlusion, ctx.align_corners, ctx.padding, *needed, deterministic
    )
    grad_feature, grad_flow, grad_occlusion = (
        gradient if is_needed else None for gradient, is_needed in zip(gradients, needed, strict=True)
    )
    # Feature gradients are summed in float32 whatever the feature is, and rounded once.
    grad_feature = None if grad_feature is None else grad_feature.to(feature.dtype)
    return grad_feature, grad_flow, grad_occlusion, None, None, None, None


WHY_NOT = {"cpp": why_not_cpp, "cuda": why_not_cuda, "triton": why_not_triton}
# feature (B, C, H, W), flow (B, N, h, w, 2) float32, occlusion (B, 1, h', w') float32 -> (B*N, C, Ho, Wo)
_OP = KernelOp(
    "flow_warp",
    "(Tensor feature, Tensor flow, Tensor? occlusion, SymInt height, SymInt width, bool align_corners, int padding) "
    "-> Tensor",
    _fake_forward,
    module="flow_warp",
    save=_save,
    backward=_backward,
)
_BACKWARD_OP = KernelOp(
    "flow_warp_backward",
    "(Tensor grad_output, Tensor feature, Tensor flow, Tensor? occlusion, bool align_corners, int padding, "
    "bool need_feature, bool need_flow, bool need_occlusion, bool deterministic) -> (Tensor, Tensor, Tensor)",
    _fake_backward,
    module="flow_warp",
)
