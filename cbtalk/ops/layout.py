"""Memory layouts of images and other (B, C, ...) tensors."""

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active as _in_functorch


def is_channels_last(x: Tensor) -> bool:
    """Whether x (B, C, ...) is dense with its channels innermost."""
    if x.dim() == 4 and not _in_functorch():  # which answers for the contiguous format only
        return x.is_contiguous(memory_format=torch.channels_last)
    return x.movedim(1, -1).is_contiguous()
