"""Frames, as video and files have them, to the images that models take, and back."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_images(frames: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [-1, 1], channels_last as the frames lie in memory."""
    return frames.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def to_frames(images: Tensor) -> NDArray[np.uint8]:
    """(B, 3, H, W) in [-1, 1] -> uint8 (B, H, W, 3), rounded; what is not finite becomes some colour."""
    return to_bytes(images).cpu().numpy()


def to_bytes(images: Tensor) -> Tensor:
    """The same, left on the device of the images."""
    scaled = images.float().nan_to_num().add(1).mul_(127.5).round_().clamp_(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
