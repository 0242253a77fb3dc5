"""Memory layouts of (B, C, H, W) tensors: predicates, and gradients in the layout of what they belong to."""

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active as _in_functorch

from cbtalk.reference.flow_warp import memory_format


def is_channels_last(x: Tensor) -> bool:
    """Whether x (B, C, H, W) is dense with its channels innermost."""
    if _in_functorch():  # which answers for the contiguous format only
        return x.permute(0, 2, 3, 1).is_contiguous()
    return x.is_contiguous(memory_format=torch.channels_last)


def in_layout_of(x: Tensor, gradient: Tensor) -> Tensor:
    """The gradient (B, C, H, W), dense, with the channels innermost if those of x are; a copy if it is not."""
    if memory_format(x) == torch.channels_last:
        return gradient.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    return gradient.contiguous()
