"""3 x 3 convolution fused with 2x upsampling before it and with leaky ReLU and residual after it."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cbtalk import _native, ranges
from cbtalk.ops.backends import choose
from cbtalk.ops.kernel_op import KernelOp
from cbtalk.ops.layout import is_channels_last
from cbtalk.reference import conv3x3 as reference

PANEL = 16  # Conv3x3Params::kPanel


@ranges.ranged("conv3x3")
def conv3x3(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    residual: Tensor | None = None,
    leak: float = 1.0,
    upsample: bool = False,
    transformed: Callable[[int], Tensor] | None = None,
    backend: str = "auto",
) -> Tensor:
    """3 x 3 convolution of stride 1 and zero padding, with optional upsampling before, leaky ReLU and residual after.

    The C++ backend is minimal filtering (Winograd; Lavin and Gray, 2016): 4 times fewer products, 2.25 times fewer for
    small images, 4 times fewer after an upsampling, which it never carries out. Float32 on the CPU where no gradient is
    needed; torch's own convolution for the rest, with all its derivatives. Under autocast, torch's.

    Args:
        x: (B, C, H, W).
        weight: (O, C, 3, 3).
        bias: (O,).
        residual: (B, O, H', W'), added at the end.
        leak: slope of the result below zero, before the residual; 1 leaves it linear, 0 makes a ReLU.
        upsample: upsample x by two, nearest neighbour, before the convolution.
        transformed: gives `transform_weight(weight, points)`, for callers that keep it from call to call.
        backend: "auto", "cpp" or "reference".

    Returns:
        (B, O, H', W') with H' = H, or 2 H where `upsample`.

    Raises:
        ValueError: shapes that do not fit together.
        BackendError: the backend asked for by name cannot run here.
    """
    if x.dim() != 4 or bias.dim() != 1 or weight.shape != (bias.shape[0], x.shape[1], 3, 3):
        raise ValueError(
            f"x {tuple(x.shape)}, weight {tuple(weight.shape)} and bias {tuple(bias.shape)} are not "
            "(B, C, H, W), (O, C, 3, 3) and (O,)"
        )
    chosen = choose(backend, WHY_NOT, x, weight, bias, residual)
    _, channels, height, width = x.shape
    fewest = min(channels, bias.shape[0])
    if chosen == "reference" or (backend == "auto" and not _pays(fewest, height * width, upsample)):
        return reference.conv3x3(x, weight, bias, residual=residual, leak=leak, upsample=upsample)
    points = _points(min(height, width), upsample)
    packed = transformed(points) if transformed else transform_weight(weight.detach(), points)
    result: Tensor = _OP(chosen, x, weight, packed, bias, residual, leak, upsample)
    return result


def transform_weight(weight: Tensor, points: int) -> Tensor:
    """The weight (O, C, 3, 3) as the C++ kernel reads it: (points, panels of 16 outputs, C, 16); summed in float64.

    Args:
        points: 36 for F(4 x 4, 3 x 3), 16 for F(2 x 2, 3 x 3), 9 for the latter behind an enlargement.
    """
    transform = torch.tensor(_TRANSFORMS[points], dtype=torch.float64)
    transformed = torch.einsum("ik,jl,ockl->ijco", transform, transform, weight.double()).flatten(0, 1)
    transformed = F.pad(transformed, (0, -weight.shape[0] % PANEL)).unflatten(2, (-1, PANEL))
    return transformed.transpose(1, 2).to(torch.float32, memory_format=torch.contiguous_format)


def _interpolation(*at: float) -> list[list[float]]:
    """The three taps at each point, divided by the product of its distances from the others, and at infinity."""
    lines = []
    for point in at:
        scale = math.prod(point - other for other in at if other != point)
        lines.append([point**power / scale for power in range(3)])
    return [*lines, [0.0, 0.0, 1.0]]


_SMALL = _interpolation(0.0, 1.0, -1.0)
_TRANSFORMS = {
    36: _interpolation(0.0, 0.6875, -0.6875, 1.5, -1.5),
    16: _SMALL,
    9: [_SMALL[0], _SMALL[1], _SMALL[3]],  # behind an enlargement the inputs at -1 are zero
}


def _points(side: int, upsample: bool) -> int:
    """Large tiles for large images; small ones would wait for a weight four times its size."""
    if upsample:
        return 9
    return 36 if side >= 32 else 16


def why_not_cpp(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None = None) -> str | None:
    """The reason why the C++ kernel cannot take these tensors, or None."""
    if reason := _native.why_not_cpp(x, weight, bias, residual):
        return reason
    tensors = (x, weight, bias) if residual is None else (x, weight, bias, residual)
    for tensor in tensors:
        if tensor.dtype != torch.float32:
            return "it takes float32 only"
    if torch.is_autocast_enabled("cpu"):
        return "autocast asks for another dtype"
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return "it is for inference: torch's convolution keeps what gradients need"
    if not is_channels_last(x) or (residual is not None and not is_channels_last(residual)):
        return "it takes channels_last images only"
    return None


def _pays(channels: int, pixels: int, upsample: bool) -> bool:
    """Whether fewer products outweigh the transforms: not for few channels, nor below 8 x 8, where reading the weight,
    which the transform enlarges, is what takes the time."""
    return upsample or (channels >= 16 and pixels >= 8 * 8)


def _fake(
    x: Tensor, weight: Tensor, packed: Tensor, bias: Tensor, residual: Tensor | None, leak: float, upsample: bool
) -> Tensor:
    scale = 2 if upsample else 1
    shape = (x.shape[0], bias.shape[0], x.shape[2] * scale, x.shape[3] * scale)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, bias, residual, ctx.leak, ctx.upsample = inputs
    ctx.save_for_backward(x, weight, bias)
    ctx.has_residual = residual is not None


def _backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    """By torch's convolution, repeated: for graphs traced without gradients that come to be trained."""
    x, weight, bias = ctx.saved_tensors
    grad_residual = grad_y
    upsampled = F.interpolate(x, scale_factor=2.0, mode="nearest") if ctx.upsample else x
    if ctx.leak != 1:
        grad_y = torch.where(F.conv2d(upsampled, weight, bias, padding=1) > 0, grad_y, grad_y * ctx.leak)
    grad_x, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
        grad_y, upsampled, weight, bias.shape, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, True]
    )
    if ctx.upsample:
        grad_x = F.avg_pool2d(grad_x, 2) * 4
    return grad_x, grad_weight, None, grad_bias, grad_residual if ctx.has_residual else None, None, None


WHY_NOT = {"cpp": why_not_cpp}
# packed is `transform_weight(weight)`; weight itself is there for the derivative. The result is channels_last.
_OP = KernelOp(
    "conv3x3",
    "(Tensor x, Tensor weight, Tensor packed, Tensor bias, Tensor? residual, float leak, bool upsample) -> Tensor",
    _fake,
    save=_save,
    backward=_backward,
)
