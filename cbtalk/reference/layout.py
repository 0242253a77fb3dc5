"""Memory layouts of images: channels innermost, or each channel by itself."""

import torch
from torch import Tensor


def memory_format(feature: Tensor) -> torch.memory_format:
    """Channels_last where the channels (B, C, H, W) lie next to one another, else contiguous."""
    return torch.channels_last if feature.stride(1) == 1 and feature.stride(3) != 1 else torch.contiguous_format


def in_layout_of(feature: Tensor, image: Tensor) -> Tensor:
    """The image (B, C, H, W), dense, with the channels innermost if those of the feature are; a copy if it is not."""
    if memory_format(feature) == torch.channels_last:
        # Not contiguous(memory_format=...), which torch.func.vmap refuses.
        return image.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    return image.contiguous()
