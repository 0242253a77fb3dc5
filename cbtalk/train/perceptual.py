"""The perceptual loss: distances of VGG features on an image pyramid."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cbtalk.model.blocks import AntiAliasDownsample
from cbtalk.nn.processes import place
from cbtalk.pretrained.vgg import VggFeatures, read_vgg

logger = logging.getLogger(__name__)

Features = list[list[Tensor]]  # per scale of the pyramid, per stage: (B, C, h, w)


class Windows(NamedTuple):
    """Windows of VGG in the levels that are too large for it: one anywhere, others around given points."""

    anywhere: Tensor  # (B, 2), from the left and from the top, in [0, 1) of the places there are
    centres: Tensor  # (n, B, 2) in [-1, 1], x then y; NaN: anywhere instead

    def cut(self, level: Tensor, side: int) -> Tensor:
        """The squares of this side that the windows show of a level (B, C, H, H): ((n + 1) B, C, side, side)."""
        height = level.shape[-1]
        around = ((self.centres + 1) * height - side) / 2
        corners = torch.cat([self.anywhere[None] * (height - side + 1), around]).flatten(0, 1)
        elsewhere = (self.anywhere * (height - side + 1)).repeat(len(around) + 1, 1)
        left, top = torch.where(corners.isnan(), elsewhere, corners).long().clamp(0, height - side).unbind(1)
        line = torch.arange(side, device=level.device)
        image = torch.arange(len(level), device=level.device).repeat(len(around) + 1)
        rows, columns = (top[:, None] + line)[:, :, None], (left[:, None] + line)[:, None, :]
        return level.permute(0, 2, 3, 1)[image[:, None, None], rows, columns].permute(0, 3, 1, 2)  # channels_last


class PerceptualLoss(nn.Module):
    """Sum over pyramid scales and VGG stages of the mean absolute difference of features (spec section 4, P).

    Args:
        vgg: the feature network.
        scales: downsampling factors of the pyramid; the paper's are 1, 2, 4 and 8.
        window: of a level larger than this, squares of this side are seen; the paper sees all.
    """

    def __init__(self, vgg: VggFeatures, scales: Sequence[int], window: int | None = None) -> None:
        super().__init__()
        self.vgg = vgg
        self.window = window
        self.pyramid = nn.ModuleList(
            AntiAliasDownsample(3, factor) if factor > 1 else nn.Identity() for factor in scales
        )

    def features(self, image: Tensor, windows: Windows | None = None) -> Features:
        """Features of images (B, 3, H, W) in [-1, 1]; without windows, of whole levels."""
        return [self.vgg(self._seen(level(image), windows)) for level in self.pyramid]

    def _seen(self, level: Tensor, windows: Windows | None) -> Tensor:
        if windows is None or self.window is None or level.shape[-1] <= self.window:
            return level
        return windows.cut(level, self.window)

    def terms(self, prediction: Features, target: Features) -> list[list[Tensor]]:
        """Mean absolute difference per scale and stage, summed in float32 at least; the target is taken as constant."""
        return [
            [_mean_distance(p, t.detach()) for p, t in zip(level_p, level_t, strict=True)]
            for level_p, level_t in zip(prediction, target, strict=True)
        ]

    def forward(self, image: Tensor, target: Features, windows: Windows | None = None) -> Tensor:
        """The loss () of images (B, 3, H, W) against the features of their targets, both seen through one set."""
        return torch.stack(
            [term for level in self.terms(self.features(image, windows), target) for term in level]
        ).sum()


def _mean_distance(prediction: Tensor, target: Tensor) -> Tensor:
    """The differences keep the features' dtype: a float32 copy of them would take a twentieth of a training step."""
    return (prediction - target).abs().mean(dtype=torch.promote_types(prediction.dtype, torch.float32))


def load_perceptual(path: Path | None, scales: Sequence[int], window: int | None = None) -> PerceptualLoss | None:
    """The perceptual loss with the VGG weights of `path`; without a file, None after one notice.

    Args:
        path: an .npz with `<index>.weight` entries, or a torchvision state dict (.pth) with `features.<index>.weight`.

    Raises:
        WeightsError: the file is absent or holds no VGG16 or VGG19 features.
    """
    if path is None:
        if place()[0] == 0:  # of several processes, one says it
            logger.warning("perceptual.weights names no VGG file: the perceptual loss is off")
        return None
    return PerceptualLoss(VggFeatures(read_vgg(path)), scales, window)
