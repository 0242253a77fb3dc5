"""The encoder, the generator, and the network that joins them through motion and appearance compensation (`net_g`)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cbtalk import ranges
from cbtalk.model.appearance_compensation import AppearanceCompensation
from cbtalk.model.blocks import (
    AttentionBlock,
    Conv3x3,
    Downsample,
    GroupNorm,
    ResBlock,
    ToImage,
    Upsample,
    cast_for,
)
from cbtalk.model.config import TalkerConfig
from cbtalk.model.dense_motion import DenseMotion
from cbtalk.model.motion_compensation import MotionCompensation, MotionStep
from cbtalk.model.openings import Changes, OpeningModulation, changes_of, opening_maps
from cbtalk.model.source_pixels import SourcePixels
from cbtalk.model.transformer import ProjectedCodes
from cbtalk.model.warping import warp

LEAK = 0.2


class Encoder(nn.Module):
    """The features of an image that are warped, at every scale."""

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__()
        widths = [config.nf * multiplier for multiplier in config.ch_mult]
        groups = config.norm_groups
        blocks: list[nn.Module] = [Conv3x3(3, config.nf)]
        kept: list[int] = []  # the last block of each resolution but the latent's
        width = config.nf
        for level, out_width in enumerate(widths):
            if level:
                kept.append(len(blocks) - 1)
                blocks.append(Downsample(width))
            for _ in range(config.residual_blocks):
                blocks.append(ResBlock(width, out_width, groups))
                width = out_width
                if level == len(widths) - 1:
                    blocks.append(AttentionBlock(width, groups))
        self.first_attention = next(i for i, block in enumerate(blocks) if isinstance(block, AttentionBlock))
        blocks += [
            ResBlock(width, width, groups),
            AttentionBlock(width, groups),
            ResBlock(width, width, groups),
            GroupNorm(groups, width),
            Conv3x3(width, width),
        ]
        self.blocks = nn.ModuleList(blocks)
        self.kept = kept
        self.gives_image = config.source_pixels

    @ranges.ranged("encode_source")
    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> (B, C, s, s) for each scale, coarsest (the latent) first; then the image, where asked."""
        features = self._features(cast_for(self.blocks[0], image), len(self.blocks) - 1)
        return (*features, image) if self.gives_image else features

    def appearance_targets(self, image: Tensor) -> tuple[Tensor, ...]:
        """Like `forward`, but the latent is the feature after the first attention block: what codes learn from."""
        return self._features(image, self.first_attention)

    def _features(self, x: Tensor, last: int) -> tuple[Tensor, ...]:
        features = []
        for position, block in enumerate(self.blocks[: last + 1]):
            x = block(x)
            if position in self.kept or position == last:
                features.append(x)
        return tuple(reversed(features))


class Generator(nn.Module):
    """The decoder, in one stage per scale; finer features may join between the stages."""

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__()
        widths = config.channels
        width, groups = widths[0], config.norm_groups
        blocks: list[nn.Module] = [
            Conv3x3(width, width),
            ResBlock(width, width, groups),
            AttentionBlock(width, groups),
            ResBlock(width, width, groups),
        ]
        ends: list[int] = []  # a stage ends after the first residual block of the next resolution
        for scale, out_width in enumerate(widths):
            if scale:
                blocks.append(Upsample(width))
                ends.append(len(blocks) + 1)
            for _ in range(config.residual_blocks):
                blocks.append(ResBlock(width, out_width, groups))
                width = out_width
                if scale == 0:
                    blocks.append(AttentionBlock(width, groups))
        blocks += [GroupNorm(groups, width), ToImage(width, 3)]
        ends.append(len(blocks) - 1)
        self.blocks = nn.ModuleList(blocks)
        self.stages = [range(a, b) for a, b in pairwise([0, *ends])]  # all but the last block

    def run_stage(self, scale: int, x: Tensor) -> Tensor:
        """From the feature of a scale, fused, to that of the next finer one; of the last, to that of `to_image`."""
        for block in self.stages[scale]:
            x = self.blocks[block](x)
        return x

    def forward(self, latent: Tensor) -> Tensor:
        """Latent (B, C, h, h) -> image (B, 3, H, W), without any fusion."""
        x = latent
        for block in self.blocks:
            x = block(x)
        return x

    @property
    def to_image(self) -> nn.Module:
        """The convolution that makes the image."""
        return self.blocks[-1]

    @property
    def last_weight(self) -> Tensor:
        """Its weight."""
        return self.to_image.get_parameter("weight")


class TwoConvolutions(nn.ModuleDict):
    """Two 3 x 3 convolutions with a leaky ReLU between; their names are the published ones."""

    def __init__(self, channels: int) -> None:
        super().__init__({"0": Conv3x3(channels, channels), "2": Conv3x3(channels, channels)})

    def forward(self, x: Tensor, *, residual: Tensor | None = None) -> Tensor:
        """(B, C, s, s) -> (B, C, s, s)."""
        return self["2"](self["0"](x, leak=LEAK), residual=residual)


class FeatureModulation(nn.Module):
    """Scales and shifts the generator's feature by what the compensated feature adds."""

    def __init__(self, channels: int, groups: int, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.encode_enc = ResBlock(2 * channels, channels, groups)
        self.scale = TwoConvolutions(channels)
        self.shift = TwoConvolutions(channels)

    def forward(self, compensated: Tensor, x: Tensor, total: Tensor) -> Tensor:
        """All (B, C, s, s) -> (B, C, s, s); `total` is x in the dtype in which the sums are taken."""
        encoded = self.encode_enc(torch.cat([compensated, x], dim=1))
        if self.weight == 1:
            return torch.addcmul(self.shift(encoded, residual=total), total, self.scale(encoded))
        return total + self.weight * torch.addcmul(self.shift(encoded), total, self.scale(encoded))


class Synthesis(NamedTuple):
    """The image, and the small things that the training losses need."""

    image: Tensor  # (B, 3, H, W)
    latent: Tensor  # (B, C, latent, latent), compensated
    motion: list[MotionStep]  # one per scale; empty without motion compensation
    warped: Tensor | None  # (B, 3, H, W): the source's pixels under the last flow; None without source pixels


class Tables(NamedTuple):
    """The codebooks as each layer sees them, and what every scale needs of the keypoints."""

    motion: list[ProjectedCodes]
    heatmaps: Tensor | None  # (B, D, latent, latent), of the motion query
    appearance: list[ProjectedCodes]
    openings: Changes | None


class CompensatedGenerator(MotionCompensation, AppearanceCompensation):
    """`net_g`: source features and dense motion -> image, compensating motion and appearance scale by scale."""

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.generator = Generator(config)
        self.add_appearance_compensation(config)
        if config.motion_compensation:
            self.add_motion_compensation(config)
        finer = list(zip(config.joining_scales, config.channels, strict=False))[1:]
        groups, weight = config.norm_groups, config.fusion_weight
        self.fuse_convs_dict = nn.ModuleDict(
            {str(scale): FeatureModulation(channels, groups, weight) for scale, channels in finer}
        )
        if config.added_features:
            self.fuse_ms_dict = nn.ModuleDict({str(scale): Conv3x3(channels, channels) for scale, channels in finer})
        if config.opening_maps:
            self.opening_enc = nn.ModuleDict(
                {
                    str(scale): OpeningModulation(width)
                    for scale, width in zip(config.scales, config.channels, strict=True)
                }
            )
        if config.source_pixels:
            self.source_pixels = SourcePixels(config.channels[-1])

    def forward(self, features: Sequence[Tensor], motion: DenseMotion) -> Synthesis:
        """The source (1 or B, C, s, s) as `Encoder` gives it, and dense motion (B, ...) -> `Synthesis`."""
        deformation, occlusion = motion.deformation, motion.occlusion
        steps: list[MotionStep] = []
        warped = None
        tables = self.tables(motion)
        for index, scale in enumerate(self.config.scales):
            joins = index < len(self.config.joining_scales)
            if joins:
                with ranges.range(f"compensation_{scale}"):
                    compensated, step = self.compensate(index, features[index], deformation, occlusion, tables)
                if step is not None:
                    steps.append(step)
                    deformation, occlusion = step.deformation, step.occlusion
            with ranges.range(f"generator_{scale}"):
                maps = None if tables.openings is None else opening_maps(tables.openings, scale)
                if index == 0:
                    x = latent = self.show_openings(index, compensated, tables.openings, maps)
                else:
                    x = self.fuse(index, compensated, x) if joins else x
                    x = self.show_openings(index, x, tables.openings, maps)
                x = self.generator.run_stage(index, x)
                if index == len(self.config.scales) - 1:
                    x, warped = self.image_of(x, features[-1], deformation, maps)
        return Synthesis(x, latent, steps, warped)

    def image_of(
        self, x: Tensor, source: Tensor, deformation: Tensor, maps: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The image (B, 3, H, W) of the last feature (B, C, H, W), and the warped source that is mixed into it.

        Args:
            source: (1 or B, 3, H, W); not read without source pixels.
            deformation: (B, h, h, 2).
            maps: (B, 3, H, W), of openings; or None.
        """
        image = self.generator.to_image(x)
        if not self.config.source_pixels:
            return image, None
        warped = warp(source, deformation)
        return self.source_pixels(x, image, warped, maps), warped

    def tables(self, motion: DenseMotion) -> Tables:
        """The codebooks, heat maps and openings that every scale reads."""
        openings = changes_of(motion.points, motion.source_points) if self.config.opening_maps else None
        if not self.config.motion_compensation:
            return Tables([], None, self.project_appearance_codes(), openings)
        heatmaps = self.encode_heatmaps(motion)
        return Tables(self.project_motion_codes(), heatmaps, self.project_appearance_codes(), openings)

    def compensate(
        self, index: int, feature: Tensor, deformation: Tensor, occlusion: Tensor, tables: Tables
    ) -> tuple[Tensor, MotionStep | None]:
        """One scale: the source's feature warped and compensated (B, C, s, s), and the motion that it was warped by.

        Args:
            feature: (1 or B, C, s, s).
            deformation, occlusion: (B, h, h, 2) and (B, 1, h, h), of dense motion or the scale before.
        """
        step = None
        if self.config.motion_compensation:
            step = self.compensate_motion(index, feature, deformation, occlusion, tables.heatmaps, tables.motion)
            deformation, occlusion = step.deformation, step.occlusion
        visible = warp(feature, deformation, occlusion)
        return self.compensate_appearance(index, visible, deformation, tables.appearance), step

    def fuse(self, index: int, compensated: Tensor, x: Tensor) -> Tensor:
        """The compensated feature joins the generator's `x`, both (B, C, s, s)."""
        scale = str(self.config.scales[index])
        # In half precision, what is rounded here at the finest scale is the largest part of the image's error.
        total = cast_for(self.generator.to_image, x) if index == len(self.config.scales) - 1 else x
        modulated = self.fuse_convs_dict[scale](compensated, x, total)
        return self.fuse_ms_dict[scale](compensated, residual=modulated) if self.config.added_features else modulated

    def show_openings(self, index: int, x: Tensor, changes: Changes | None, maps: Tensor | None) -> Tensor:
        """`x` (B, C, s, s) changed where mouth and eyes open or close, by `maps` (B, 3, s, s); None: as it is."""
        return x if changes is None else self.opening_enc[str(self.config.scales[index])](x, maps, changes.opened)
