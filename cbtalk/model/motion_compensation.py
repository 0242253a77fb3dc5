"""Motion compensation: the deformation and the occlusion map refined at each scale with the motion codebook."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbtalk.model.blocks import (
    Conv3x3,
    Downsample,
    GroupNorm,
    NarrowConv2d,
    ResBlock,
    Upsample,
    cast_for,
    full_precision,
    resize,
    to_image,
    to_tokens,
)
from cbtalk.model.codebook import Codebook
from cbtalk.model.config import TalkerConfig
from cbtalk.model.dense_motion import DenseMotion
from cbtalk.model.transformer import ProjectedCodes, TransformerLayer, positions, project_codes
from cbtalk.model.warping import WarpedFeature


def pixel_flow(deformation: Tensor) -> Tensor:
    """Deformation (B, h, h, 2) -> displacement in pixels (B, 2, h, h).

    The identity grid is computed in float32 whatever the dtype, as the published model has it.
    """
    size = deformation.shape[1]
    line = torch.linspace(-1, 1, size, dtype=torch.float32, device=deformation.device).to(deformation.dtype)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return ((deformation - torch.stack([x, y], dim=-1)) * ((size - 1) / 2)).permute(0, 3, 1, 2)


class MotionEncoder(nn.Module):
    """Joins the pixel flow with the transformer's output."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.convc1 = nn.Conv2d(dim, hidden, kernel_size=1)
        self.convc2 = Conv3x3(hidden, hidden * 3 // 4)
        self.convf1 = nn.Conv2d(2, hidden, kernel_size=7, padding=3)
        self.convf2 = Conv3x3(hidden, hidden // 2)
        self.conv = Conv3x3(hidden * 3 // 4 + hidden // 2, hidden - 2)

    def forward(self, flow: Tensor, code: Tensor) -> Tensor:
        """Pixel flow (B, 2, h, h), code (B, D, h, h) -> (B, hidden, h, h)."""
        code = self.convc2(F.relu(self.convc1(code)), leak=0)
        motion = self.convf2(F.relu(self.convf1(flow)), leak=0)
        joined = self.conv(torch.cat([code, motion], dim=1), leak=0)
        return torch.cat([joined, flow.to(joined.dtype)], dim=1)


class PlainMotionEncoder(nn.Module):
    """In place of `MotionEncoder`: the code in its number of channels, beside the flow as it is."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, hidden - 2, kernel_size=1)

    def forward(self, flow: Tensor, code: Tensor) -> Tensor:
        """Pixel flow (B, 2, h, h), code (B, D, h, h) -> (B, hidden, h, h)."""
        joined = F.relu(self.conv(code))
        return torch.cat([joined, flow.to(joined.dtype)], dim=1)


class FlowRefinement(nn.Module):
    """Residuals of the flow (in pixels) and of the occlusion (before its sigmoid)."""

    def __init__(self, hidden: int, context: int) -> None:
        super().__init__()
        self.convc1 = Conv3x3(context, hidden)
        self.conv1 = Conv3x3(2 * hidden, hidden)
        self.conv2 = NarrowConv2d(hidden, 2, 3)
        self.convo1 = Conv3x3(2 * hidden, hidden)
        self.convo2 = NarrowConv2d(hidden, 1, 3)

    def forward(self, motion: Tensor, context: Tensor) -> Tensor:
        """Encoded motion (B, hidden, h, h), context (B, 3 / 2 hidden, h, h) -> flow x, y and occlusion (B, 3, h, h)."""
        joined = torch.cat([motion, self.convc1(context, leak=0)], dim=1)
        flow = self.conv2(self.conv1(joined, leak=0))
        occlusion = self.convo2(self.convo1(joined, leak=0))
        return torch.cat([flow, occlusion], dim=1)


class MotionStep(NamedTuple):
    """The results of one scale's motion compensation."""

    deformation: Tensor  # (B, h, h, 2)
    occlusion: Tensor  # (B, 1, h, h)
    pixel_flow: Tensor  # (B, 2, h, h) of the deformation that entered
    embedding: Tensor  # (B, D, latent, latent): that flow as the codebook sees it, detached unless configured


class MotionCompensation(nn.Module):
    """The motion half of the generator: flat parameters under their released names, one step per scale."""

    config: TalkerConfig

    def add_motion_compensation(self, config: TalkerConfig) -> None:
        """Creates the parameters (called once by the generator's constructor)."""
        dim, hidden, scales = config.motion_dim, config.motion_hidden, config.joining_scales
        halvings = (config.motion_size // config.latent_size).bit_length() - 1
        context, groups = hidden * 3 // 2, config.norm_groups
        self.position_emb_motion = positions(config, dim)
        allocation = config.motion_allocation or config.code_allocation
        self.quantize_motion = Codebook(config.motion_codes, dim, len(scales), allocation)
        self.motion_emb = nn.Sequential(
            Conv3x3(2, dim), *(Downsample(dim) for _ in range(halvings)), ResBlock(dim, dim, groups)
        )
        self.to_motion = nn.Sequential(
            *(Upsample(dim) for _ in range(halvings)),
            ResBlock(dim, dim, groups),
            GroupNorm(groups, dim),
            NarrowConv2d(dim, 2, 3),
        )
        self.motion_block = nn.ModuleList(TransformerLayer(dim, config.heads) for _ in range(config.motion_layers))
        for scale, channels in zip(scales, config.channels, strict=False):
            self.add_module(f"warped_source_enc_{scale}", nn.Conv2d(channels, dim, kernel_size=1))
        if config.keypoint_query != "none":
            faces = 2 if config.keypoint_query == "source_driving" else 1
            self.driving_kp_enc = nn.Conv2d(faces * config.keypoints, dim, kernel_size=1)
            self.motion_query_enc_1 = nn.Conv2d(2 * dim, dim, kernel_size=1)
        self.motion_query_enc_2 = nn.Conv2d(2 * dim, dim, kernel_size=1)
        self.BasicMotionEncoder = (MotionEncoder if config.motion_encoder else PlainMotionEncoder)(dim, hidden)
        self.to_context = nn.ModuleList(
            nn.Conv2d(channels, context, kernel_size=1) for channels in config.channels[: len(scales)]
        )
        self.refine = FlowRefinement(hidden, context)

    def encode_heatmaps(self, motion: DenseMotion) -> Tensor | None:
        """Heat maps of the keypoints -> (B, D, latent, latent), the same for every scale; None: the query has none."""
        if self.config.keypoint_query == "none":
            return None
        heatmaps = motion.heatmaps
        if self.config.keypoint_query == "source_driving":
            heatmaps = torch.cat([motion.source_heatmaps.expand_as(heatmaps), heatmaps], dim=1)
        resized = resize(heatmaps, self.config.latent_size)
        return F.relu(self.driving_kp_enc(cast_for(self.driving_kp_enc, resized)))

    def project_motion_codes(self) -> list[ProjectedCodes]:
        """The whole motion codebook as each layer sees it."""
        return project_codes(self.motion_block, self.quantize_motion.embedding.weight)

    def compensate_motion(
        self,
        index: int,
        feature: Tensor,
        deformation: Tensor,
        occlusion: Tensor,
        heatmaps: Tensor | None,
        codes: list[ProjectedCodes],
    ) -> MotionStep:
        """One scale: the deformation (B, h, h, 2) and occlusion (B, 1, h, h) refined.

        Args:
            index: number of the scale, 0 = the coarsest.
            feature: of the source (1 or B, C, s, s).
            heatmaps: from `encode_heatmaps`.
            codes: from `project_motion_codes`.
        """
        warped = WarpedFeature(feature, deformation)
        flow = pixel_flow(deformation)
        seen = cast_for(self.BasicMotionEncoder, flow)
        embedding = self.motion_emb(seen.detach() if self.config.detach_motion_query else seen)
        code = self._attend_motion(index, self._motion_query(index, warped, heatmaps, embedding), codes)
        motion = self.BasicMotionEncoder(seen, resize(code, self.config.motion_size))
        context = warped.resized(self.config.motion_size, lambda pixels: F.relu(self.to_context[index](pixels)))
        residual = full_precision(self.refine(motion, context))
        step = residual[:, :2].permute(0, 2, 3, 1) / self.config.pixels_per_unit
        return MotionStep(deformation + step, torch.sigmoid(occlusion + residual[:, 2:]), flow, embedding)

    def _motion_query(self, index: int, warped: WarpedFeature, heatmaps: Tensor | None, embedding: Tensor) -> Tensor:
        encode = self.get_submodule(f"warped_source_enc_{self.config.scales[index]}")
        query = F.relu(encode(warped.resized(self.config.latent_size, lambda pixels: pixels)))
        if heatmaps is not None:
            query = self.motion_query_enc_1(torch.cat([query, heatmaps], dim=1))
        return self.motion_query_enc_2(torch.cat([embedding, query], dim=1))  # (B, D, latent, latent)

    def _attend_motion(self, index: int, query: Tensor, codes: list[ProjectedCodes]) -> Tensor:
        rows, size = self.quantize_motion.rows(index), self.config.latent_size
        tokens = to_tokens(query)
        for layer, projected in zip(self.motion_block, codes, strict=True):
            tokens = layer(tokens, self.position_emb_motion, projected.rows(rows), size)
        return to_image(tokens, size)

    def motion_losses(self, step: MotionStep, index: int) -> tuple[Tensor, Tensor]:
        """The code loss of the scale's flow embedding, and the error of the flow decoded from its codes."""
        quantized = self.quantize_motion.quantize(to_tokens(step.embedding), index)
        decoded = full_precision(self.to_motion(to_image(quantized.codes, self.config.latent_size)))
        scale = self.config.pixels_per_unit
        return quantized.loss, F.l1_loss(decoded / scale, (step.pixel_flow / scale).detach())
