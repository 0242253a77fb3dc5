"""Group normalisation with an optional SiLU behind it, in plain torch: it defines what every backend must compute."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C import _are_functorch_transforms_active as _in_functorch
from torch.autograd import forward_ad


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
    wide = x.to(work)
    if forward_ad._current_level >= 0 or _in_functorch():
        wide = wide.contiguous()  # the formulas that torch has for these take no other layout
    weight, bias = (None if parameter is None else parameter.to(work) for parameter in (weight, bias))
    normalised = F.group_norm(wide, groups, weight, bias, eps)
    return (F.silu(normalised) if silu else normalised).to(x.dtype)
