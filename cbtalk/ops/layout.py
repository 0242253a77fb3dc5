"""Memory layouts of images and other (B, C, ...) tensors."""

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active as _in_functorch

from cbtalk.reference.flow_warp import memory_format


def is_channels_last(x: Tensor) -> bool:
    """Whether x (B, C, ...) is dense with its channels innermost."""
    if x.dim() == 4 and not _in_functorch():  # which answers for the contiguous format only
        return x.is_contiguous(memory_format=torch.channels_last)
    return x.movedim(1, -1).is_contiguous()


def in_layout_of(x: Tensor, gradient: Tensor) -> Tensor:
    """The gradient (B, C, H, W), dense, with the channels innermost if those of x are; a copy if it is not."""
    if memory_format(x) == torch.channels_last:
        return gradient.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    return gradient.contiguous()
