"""The encoder, the generator, and the network that joins them through motion and appearance compensation (`net_g`)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbtalk.model.appearance_compensation import AppearanceCompensation
from cbtalk.model.blocks import AttentionBlock, Downsample, ResBlock, Upsample, conv3x3, group_norm
from cbtalk.model.config import TalkerConfig
from cbtalk.model.dense_motion import DenseMotion
from cbtalk.model.motion_compensation import MotionCompensation, MotionStep
from cbtalk.ops.flow_warp import flow_warp


class Encoder(nn.Module):
    """Picture (B, 3, H, W) -> the features that are warped, coarsest (the latent) first."""

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__()
        widths = [config.nf * multiplier for multiplier in config.ch_mult]
        blocks: list[nn.Module] = [conv3x3(3, config.nf)]
        kept: list[int] = []  # the last block of each resolution but the latent's
        width = config.nf
        for level, out_width in enumerate(widths):
            if level:
                kept.append(len(blocks) - 1)
                blocks.append(Downsample(width))
            for _ in range(config.residual_blocks):
                blocks.append(ResBlock(width, out_width))
                width = out_width
                if level == len(widths) - 1:
                    blocks.append(AttentionBlock(width))
        self.first_attention = next(i for i, block in enumerate(blocks) if isinstance(block, AttentionBlock))
        blocks += [
            ResBlock(width, width),
            AttentionBlock(width),
            ResBlock(width, width),
            group_norm(width),
            conv3x3(width, width),
        ]
        self.blocks = nn.ModuleList(blocks)
        self.kept = kept

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self._features(image, len(self.blocks) - 1)

    def appearance_targets(self, image: Tensor) -> tuple[Tensor, ...]:
        """Like `forward`, but the latent is the feature after the first attention block: the codebook's training target."""
        return self._features(image, self.first_attention)

    def _features(self, x: Tensor, last: int) -> tuple[Tensor, ...]:
        features = []
        for position, block in enumerate(self.blocks[: last + 1]):
            x = block(x)
            if position in self.kept or position == last:
                features.append(x)
        return tuple(reversed(features))


class Generator(nn.Module):
    """The decoder: latent (B, C, h, h) -> picture (B, 3, H, W). `fusion_points` are where finer features may join."""

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__()
        widths = config.channels
        width = widths[0]
        blocks: list[nn.Module] = [
            conv3x3(width, width),
            ResBlock(width, width),
            AttentionBlock(width),
            ResBlock(width, width),
        ]
        fusion_points: dict[int, int] = {}  # block -> number of the scale
        for scale, out_width in enumerate(widths):
            if scale:
                blocks.append(Upsample(width))
                fusion_points[len(blocks)] = scale
            for _ in range(config.residual_blocks):
                blocks.append(ResBlock(width, out_width))
                width = out_width
                if scale == 0:
                    blocks.append(AttentionBlock(width))
        blocks += [group_norm(width), conv3x3(width, 3)]
        self.blocks = nn.ModuleList(blocks)
        self.fusion_points = fusion_points

    def forward(self, latent: Tensor) -> Tensor:
        x = latent
        for block in self.blocks:
            x = block(x)
        return x

    @property
    def last_weight(self) -> Tensor:
        """Weight of the convolution that makes the picture."""
        return self.blocks[-1].weight


class FeatureModulation(nn.Module):
    """Scales and shifts the generator's feature by what the compensated feature adds: two (B, C, s, s) -> (B, C, s, s)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.encode_enc = ResBlock(2 * channels, channels)
        self.scale = nn.Sequential(conv3x3(channels, channels), nn.LeakyReLU(0.2), conv3x3(channels, channels))
        self.shift = nn.Sequential(conv3x3(channels, channels), nn.LeakyReLU(0.2), conv3x3(channels, channels))

    def forward(self, compensated: Tensor, x: Tensor) -> Tensor:
        encoded = self.encode_enc(torch.cat([compensated, x], dim=1))
        return x + (x * self.scale(encoded) + self.shift(encoded))


class Synthesis(NamedTuple):
    """The picture, and the small things that the training losses need."""

    image: Tensor  # (B, 3, H, W)
    latent: Tensor  # (B, C, latent, latent), compensated
    motion: list[MotionStep]  # one per scale; empty without motion compensation


class CompensatedGenerator(MotionCompensation, AppearanceCompensation):
    """`net_g`: source features and dense motion -> picture, compensating motion and appearance scale by scale."""

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.generator = Generator(config)
        self.add_appearance_compensation(config)
        if config.motion_compensation:
            self.add_motion_compensation(config)
        finer = list(zip(config.scales, config.channels, strict=True))[1:]
        self.fuse_convs_dict = nn.ModuleDict({str(scale): FeatureModulation(channels) for scale, channels in finer})
        self.fuse_ms_dict = nn.ModuleDict({str(scale): conv3x3(channels, channels) for scale, channels in finer})

    def forward(self, features: Sequence[Tensor], motion: DenseMotion) -> Synthesis:
        """Source features (1 or B, C, s, s) per scale as `Encoder` gives them, dense motion (B, ...) -> `Synthesis`."""
        deformation, occlusion = motion.deformation, motion.occlusion
        steps: list[MotionStep] = []
        appearance_codes = self.project_appearance_codes()
        compensating = self.config.motion_compensation
        motion_codes = self.project_motion_codes() if compensating else []
        heatmaps = self.encode_heatmaps(motion.heatmaps) if compensating else None

        def compensated(index: int) -> Tensor:
            nonlocal deformation, occlusion
            feature = features[index]
            if heatmaps is not None:
                warped = warp(feature, deformation)
                steps.append(self.compensate_motion(index, warped, deformation, occlusion, heatmaps, motion_codes))
                deformation, occlusion = steps[-1].deformation, steps[-1].occlusion
            visible = warp(feature, deformation, occlusion)
            return self.compensate_appearance(index, visible, deformation, appearance_codes)

        latent = compensated(0)
        x = latent
        for position, block in enumerate(self.generator.blocks):
            x = block(x)
            if position in self.generator.fusion_points:
                index = self.generator.fusion_points[position]
                x = self.fuse(index, compensated(index), x)
        return Synthesis(x, latent, steps)

    def fuse(self, index: int, compensated: Tensor, x: Tensor) -> Tensor:
        """The compensated feature joins the generator's `x`, both (B, C, s, s)."""
        scale = str(self.config.scales[index])
        x = self.fuse_convs_dict[scale](compensated, x)
        return x + self.fuse_ms_dict[scale](compensated)


def warp(feature: Tensor, deformation: Tensor, occlusion: Tensor | None = None) -> Tensor:
    """A source feature (1 or B, C, s, s) under a deformation (B, h, h, 2), times the occlusion (B, 1, h, h) -> (B, C, s, s)."""
    if feature.shape[0] == deformation.shape[0]:
        return flow_warp(feature, deformation, occlusion)
    return flow_warp(feature.expand(deformation.shape[0], -1, -1, -1), deformation, occlusion)
