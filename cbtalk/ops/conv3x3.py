"""3 x 3 convolution of channels_last pictures, with the enlargement ahead of it and what follows it in one pass."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from cbtalk import _native
from cbtalk.ops.backends import choose
from cbtalk.reference import conv3x3 as reference

# weight is transformed (`transform_weight`); y comes as (B, H, W, O).
torch.library.define(
    "cbtalk::conv3x3",
    "(Tensor x, Tensor weight, Tensor bias, Tensor? residual, float leak, bool upsample) -> Tensor",
)

PANEL = 16  # Conv3x3Params::kPanel


def conv3x3(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    residual: Tensor | None = None,
    leak: float = 1.0,
    upsample: bool = False,
    transformed: Callable[[], Tensor] | None = None,
    backend: str = "auto",
) -> Tensor:
    """3 x 3 convolution of stride 1, zero padding; optionally enlarged ahead, a leaky ReLU and a residual behind.

    The C++ backend is Winograd's minimal filtering F(2 x 2, 3 x 3) (Lavin and Gray, 2016): 2.25 times fewer products,
    and 4 times fewer behind an enlargement, which it never carries out. Float32 on the CPU, and without gradients;
    torch's own convolution for the rest.

    Args:
        x: (B, C, H, W).
        weight: (O, C, 3, 3).
        bias: (O,).
        residual: (B, O, H', W'), added at the end.
        leak: slope of the result below zero, ahead of the residual; 1 leaves it linear, 0 makes a ReLU.
        upsample: enlarge x by two, nearest neighbour, ahead of the convolution.
        transformed: gives `transform_weight(weight, upsample)`, for callers that keep it from call to call.
        backend: "auto", "cpp" or "reference".

    Returns:
        (B, O, H', W') with H' = H, or 2 H where `upsample`.

    Raises:
        ValueError: shapes that do not fit together.
        BackendError: the backend asked for by name cannot run here.
    """
    if x.dim() != 4 or weight.shape[1:] != (x.shape[1], 3, 3) or bias.shape != weight.shape[:1]:
        raise ValueError(
            f"x {tuple(x.shape)}, weight {tuple(weight.shape)} and bias {tuple(bias.shape)} are not "
            "(B, C, H, W), (O, C, 3, 3) and (O,)"
        )
    tensors = (x, weight, bias) if residual is None else (x, weight, bias, residual)
    reasons = [("cpp", why_not_cpp(*tensors)), ("reference", None)]
    if backend == "auto" and not _pays(x, weight, upsample):
        reasons.reverse()
    if choose(backend, reasons) == "reference":
        return reference.conv3x3(x, weight, bias, residual=residual, leak=leak, upsample=upsample)
    packed = transformed() if transformed else transform_weight(weight, upsample)
    return torch.ops.cbtalk.conv3x3.default(x, packed, bias, residual, leak, upsample).permute(0, 3, 1, 2)


def transform_weight(weight: Tensor, upsample: bool = False) -> Tensor:
    """The weight (O, C, 3, 3) as the C++ kernel reads it: (points, panels of 16 outputs, C, 16); summed in float64."""
    lines = [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]
    if upsample:
        del lines[2]  # the kernel's third line of inputs is zero
    transform = torch.tensor(lines, dtype=torch.float64)
    points = torch.einsum("ik,jl,ockl->ijco", transform, transform, weight.double()).flatten(0, 1)
    points = F.pad(points, (0, -weight.shape[0] % PANEL)).unflatten(2, (-1, PANEL))
    return points.transpose(1, 2).to(torch.float32, memory_format=torch.contiguous_format)


def why_not_cpp(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None = None) -> str | None:
    """Why the C++ kernel cannot take these tensors, or None."""
    if reason := _native.why_not_cpp():
        return reason
    tensors = [x, weight, bias] if residual is None else [x, weight, bias, residual]
    if any(tensor.device.type != "cpu" or tensor.dtype != torch.float32 for tensor in tensors):
        return "it takes float32 CPU tensors only"
    if torch.is_autocast_enabled("cpu"):
        return "autocast asks for another dtype"
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return "it computes no gradients"
    pictures = [x] if residual is None else [x, residual]
    if not all(picture.is_contiguous(memory_format=torch.channels_last) for picture in pictures):
        return "it takes channels_last pictures only"
    return None


def _pays(x: Tensor, weight: Tensor, upsample: bool) -> bool:
    """Whether fewer products outweigh the transforms.

    One thread of a Xeon with AVX-512, November 2026, against torch 2.13 with oneDNN: 1.6 to 1.9 times faster from
    32 x 64 channels on, 1.0 at 32 x 32, 0.9 below; 3.0 to 5.7 times behind an enlargement. Pictures smaller than
    8 x 8 wait for the weight, which the transform makes 1.8 times larger.
    """
    few_channels = weight.shape[0] * weight.shape[1] <= 32 * 32
    return upsample or (not few_channels and x.shape[2] * x.shape[3] >= 8 * 8)


def _fake(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, leak: float, upsample: bool) -> Tensor:
    scale = 2 if upsample else 1
    return x.new_empty((x.shape[0], x.shape[2] * scale, x.shape[3] * scale, bias.shape[0]))


torch.library.register_fake("cbtalk::conv3x3", _fake)
