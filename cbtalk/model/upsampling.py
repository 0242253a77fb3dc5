"""Nearest-neighbour upsampling by two and a 3 x 3 convolution behind it as one convolution of the small image.

A pixel of the result sees 2 x 2 pixels of the small image; its parity in rows and columns, its phase, tells which. The
nine taps, summed where they meet the same pixel, are four for each of the four phases: 16 products instead of 36.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

# Below, the weight, which is 16 / 9 of the plain one, takes as long to read as the products that are left out.
LEAST_PIXELS = 8 * 8


def way_of(x: Tensor, weight: Tensor) -> Literal["op", "transposed", "phases"]:
    """The way to upsample and convolve: `cbtalk.ops.conv3x3`, or at inference `transposed` or `by_phases`.

    The op has kernels of its own in float32 on the CPU and upsamples everywhere else. On a CPU in bfloat16, oneDNN's
    transposed convolution was measured faster (docs/decisions/precision.md); on a GPU, phases are taken by arithmetic
    (docs/decisions/gpu_rendering.md). Compilers get the op: they would sum the taps anew in each call.
    """
    if torch.is_grad_enabled():
        return "op"
    if x.is_cpu and x.dtype == weight.dtype == torch.bfloat16:
        return "transposed"
    on_gpu = x.is_cuda and not torch.compiler.is_compiling()
    return "phases" if on_gpu and x.shape[2] * x.shape[3] >= LEAST_PIXELS else "op"


def transposed_weight(weight: Tensor) -> Tensor:
    """(O, C, 3, 3) -> (C, O, 4, 4): of a transposed convolution, the taps summed in float64."""
    taps = F.pad(weight.double().flip(2, 3).transpose(0, 1), (1, 1, 1, 1))  # (C, O, 5, 5)
    return F.avg_pool2d(taps, 2, stride=1, divisor_override=1).to(weight.dtype, memory_format=torch.channels_last)


def transposed(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x (B, C, H, W), `transposed_weight(weight)`, bias (O,) -> (B, O, 2 H, 2 W)."""
    return F.conv_transpose2d(x, weight, bias, stride=2, padding=1)


def phase_weight(weight: Tensor) -> Tensor:
    """(O, C, 3, 3) -> (4 O, C, 2, 2): the phases in the order of rows, columns, outputs; the taps summed in float64."""
    taps = transposed_weight(weight).flip(2, 3)  # of a line's four, p + 2 t is tap t of phase p
    taps = taps.unflatten(3, (2, 2)).unflatten(2, (2, 2))  # (C, O, 2 taps, 2 phases, 2 taps, 2 phases)
    return taps.permute(3, 5, 1, 0, 2, 4).flatten(0, 2).contiguous(memory_format=torch.channels_last)


def by_phases(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x (B, C, H, W), `phase_weight(weight)`, bias (O,) -> (B, O, 2 H, 2 W), in the layout of the convolution's result.

    One convolution makes all phases at each 2 x 2 window, those over the border included; the phases are then put
    between each other, the bias being added on the way.
    """
    windows = F.conv2d(x, weight, padding=1)  # (B, 4 O, H + 1, W + 1)
    batch, outputs, (height, width) = x.shape[0], bias.shape[0], x.shape[2:]
    of_batch, of_channel, of_row, of_column = windows.stride()
    # Phase p of pixel i is at window i + p.
    phases = windows.as_strided(
        (batch, outputs, height, 2, width, 2),
        (
            of_batch, of_channel,
            of_row, of_row + 2 * outputs * of_channel,
            of_column, of_column + outputs * of_channel,
        ),
    )  # fmt: skip
    last = windows.is_contiguous(memory_format=torch.channels_last)
    result = torch.empty(
        (batch, outputs, 2 * height, 2 * width),
        dtype=windows.dtype, device=windows.device,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )  # fmt: skip
    between = result.unflatten(3, (width, 2)).unflatten(2, (height, 2))
    torch.add(phases, bias.to(windows.dtype).view(-1, 1, 1, 1, 1), out=between)
    return result
