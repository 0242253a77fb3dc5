"""Keypoints with local affine frames, and the network that detects them."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from cbtalk import ranges
from cbtalk.model.blocks import AntiAliasDownsample, full_precision, without_autocast
from cbtalk.model.config import KEYPOINT_KERNEL, TalkerConfig
from cbtalk.model.hourglass import Hourglass
from cbtalk.precision import float32_convolutions

SOFTMAX_TEMPERATURE = 0.1
HEATMAP_VARIANCE = 0.01


class Keypoints(NamedTuple):
    """K keypoints of each of B images."""

    value: Tensor  # (B, K, 2): (x, y) in [-1, 1], corner aligned
    jacobian: Tensor  # (B, K, 2, 2)


def coordinate_grid(size: int, like: Tensor) -> Tensor:
    """(size, size, 2): the (x, y) of every pixel in [-1, 1], corner aligned, of dtype and device of `like`."""
    line = 2 * (torch.arange(size, dtype=like.dtype, device=like.device) / (size - 1)) - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], dim=-1)


def gaussian_heatmaps(points: Tensor, size: int) -> Tensor:
    """Keypoints (B, K, 2) -> heat maps (B, K, size, size), 1 at the keypoint."""
    offset = coordinate_grid(size, points) - points[:, :, None, None]  # (B, K, size, size, 2)
    return torch.exp(-0.5 * offset.square().sum(-1) / HEATMAP_VARIANCE)


def inverse_2x2(matrix: Tensor) -> Tensor:
    """Inverse of (..., 2, 2) in closed form; a singular matrix gives infinities instead of an error."""
    a, b, c, d = matrix.flatten(-2).unbind(-1)
    adjugate = torch.stack([d, -b, -c, a], dim=-1).unflatten(-1, (2, 2))
    return adjugate / (a * d - b * c)[..., None, None]


class KeypointDetector(nn.Module):
    """Keypoints and jacobians as expectations under one heat map per keypoint."""

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__()
        self.down = AntiAliasDownsample(3, config.motion_downsampling)
        self.predictor = Hourglass(3, config.keypoint_expansion, config.hourglass_blocks, config.hourglass_max)
        features = self.predictor.out_channels
        self.kp = nn.Conv2d(features, config.keypoints, KEYPOINT_KERNEL)
        self.jacobian = nn.Conv2d(features, 4 * config.keypoints, KEYPOINT_KERNEL)
        nn.init.zeros_(self.jacobian.weight)
        self.jacobian.bias = nn.Parameter(torch.tensor([1.0, 0.0, 0.0, 1.0] * config.keypoints))

    @ranges.ranged("keypoints")
    @float32_convolutions()
    def forward(self, image: Tensor) -> Keypoints:
        """(B, 3, H, W) in [-1, 1] -> K keypoints of each image, in float32 at least."""
        features = self.predictor(self.down(image))
        logits = full_precision(self.kp(features))  # (B, K, h, h)
        entries = full_precision(self.jacobian(features)).unflatten(1, (-1, 4)).flatten(3)  # (B, K, 4, h h)
        with without_autocast(image):
            heat = torch.softmax(logits.flatten(2) / SOFTMAX_TEMPERATURE, dim=-1)  # (B, K, h h)
            grid = coordinate_grid(logits.shape[-1], logits).flatten(0, 1)  # (h h, 2)
            jacobian = (entries @ heat.unsqueeze(-1)).unflatten(2, (2, 2)).squeeze(-1)
            return Keypoints(heat @ grid, jacobian)
