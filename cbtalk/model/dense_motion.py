"""Dense motion: one deformation and one occlusion map from two sets of keypoints."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from cbtalk import ranges
from cbtalk.model.blocks import (
    AntiAliasDownsample,
    Float32Conv2d,
    NarrowConv2d,
    cast_for,
    full_precision,
    without_autocast,
)
from cbtalk.model.config import KEYPOINT_KERNEL, TalkerConfig
from cbtalk.model.hourglass import Hourglass
from cbtalk.model.keypoints import KeypointDetector, Keypoints, coordinate_grid, gaussian_heatmaps, inverse_2x2
from cbtalk.ops import flow_warp


class DenseMotion(NamedTuple):
    """For each pixel of the driving frame its place in the source, at motion size h."""

    deformation: Tensor  # (B, h, h, 2): (x, y) in the source, [-1, 1]
    occlusion: Tensor  # (B, 1, h, h): 1 = visible in the source
    heatmaps: Tensor  # (B, K, h, h) of the driving keypoints
    source_heatmaps: Tensor  # (1 or B, K, h, h)
    points: Tensor  # (B, K, 2): the driving keypoints
    source_points: Tensor  # (1 or B, K, 2)
    mask: Tensor  # (B, K + 1, h, h): weight of the background and of each keypoint's motion
    deformed: Tensor  # (B, K + 1, 3, h, h): the source under each of these motions


def sparse_motions(source: Keypoints, driving: Keypoints, size: int) -> Tensor:
    """(B, K + 1, size, size, 2): the identity, then each keypoint's affine motion, driving to source."""
    grid = coordinate_grid(size, driving.value)
    affine = source.jacobian @ inverse_2x2(driving.jacobian)  # (B, K, 2, 2)
    offset = grid - driving.value[:, :, None, None]  # (B, K, size, size, 2)
    moved = offset.flatten(2, 3) @ affine.transpose(-1, -2)
    moved = moved.unflatten(2, (size, size)) + source.value[:, :, None, None]
    identity = grid.expand(moved.shape[0], 1, -1, -1, -1)
    return torch.cat([identity, moved], dim=1)


class DenseMotionNetwork(nn.Module):
    """Blends the keypoints' affine motions by a predicted mask, and predicts what the source does not show."""

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__()
        motions = config.keypoints + 1
        self.down = AntiAliasDownsample(3, config.motion_downsampling)
        self.hourglass = Hourglass(4 * motions, config.dense_expansion, config.hourglass_blocks, config.hourglass_max)
        features = self.hourglass.out_channels
        self.mask = Float32Conv2d(features, motions, KEYPOINT_KERNEL, padding=KEYPOINT_KERNEL // 2)
        self.occlusion = NarrowConv2d(features, 1, KEYPOINT_KERNEL)

    @ranges.ranged("dense_motion")
    def forward(self, small_source: Tensor, source: Keypoints, driving: Keypoints) -> DenseMotion:
        """The source downsampled by `self.down` (1 or B, 3, h, h), its keypoints (1 or B), driving keypoints (B)."""
        size = small_source.shape[-1]
        batch = driving.value.shape[0]
        with without_autocast(small_source):
            motions = sparse_motions(source, driving, size)  # (B, K + 1, h, h, 2)
            heatmaps = gaussian_heatmaps(driving.value, size)
            source_heatmaps = gaussian_heatmaps(source.value, size)
            difference = heatmaps - source_heatmaps  # (B, K, h, h)
            difference = torch.cat([torch.zeros_like(difference[:, :1]), difference], dim=1)
            # a single source serves every driving frame as if all motions were its own
            flows = motions.reshape(small_source.shape[0], -1, size, size, 2)
            deformed = flow_warp(full_precision(small_source), flows, align_corners=False)
            deformed = deformed.reshape(batch, -1, 3, size, size)  # (B, K + 1, 3, h, h)
            stacked = torch.cat([difference.unsqueeze(2), deformed], dim=2).flatten(1, 2)
        features = self.hourglass(cast_for(self.hourglass, stacked).contiguous(memory_format=torch.channels_last))
        logits, occlusion = full_precision(self.mask(features)), full_precision(self.occlusion(features))
        with without_autocast(small_source):
            mask = torch.softmax(logits, dim=1)
            deformation = torch.einsum("bkhw,bkhwc->bhwc", mask, motions)
        points = (driving.value, source.value)
        return DenseMotion(deformation, torch.sigmoid(occlusion), heatmaps, source_heatmaps, *points, mask, deformed)


class MotionEstimator(nn.Module):
    """The keypoint detector and the dense motion network, under their released names."""

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__()
        self.kp_detector = KeypointDetector(config)
        self.dense_motion_network = DenseMotionNetwork(config)
