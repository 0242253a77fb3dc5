"""Group normalisation with an optional SiLU behind it, in plain torch: it defines what every backend must compute."""

import torch
import torch.nn.functional as F
from torch import Tensor


def group_norm(
    x: Tensor,  # (B, C, ...)
    weight: Tensor | None = None,  # (C,)
    bias: Tensor | None = None,
    *,
    groups: int,
    eps: float,
    silu: bool = False,
) -> Tensor:
    """Arguments, result and rules are those of `cbtalk.ops.group_norm`.

    Dtypes narrower than float32 are computed in float32 and rounded once at the end.
    """
    work = torch.promote_types(x.dtype, torch.float32)
    weight, bias = (None if parameter is None else parameter.to(work) for parameter in (weight, bias))
    normalised = F.group_norm(x.to(work), groups, weight, bias, eps)
    return (F.silu(normalised) if silu else normalised).to(x.dtype)
