"""3 x 3 convolution and its surroundings in plain torch: this defines what every other backend must compute."""

import torch.nn.functional as F
from torch import Tensor


def conv3x3(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    residual: Tensor | None = None,
    leak: float = 1.0,
    upsample: bool = False,
) -> Tensor:
    """Arguments, result and rules are those of `cbtalk.ops.conv3x3`. Any dtype and device; differentiable."""
    if upsample:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
    y = F.conv2d(x, weight, bias, padding=1)
    if leak != 1:
        y = F.leaky_relu(y, leak)
    return y if residual is None else y + residual
