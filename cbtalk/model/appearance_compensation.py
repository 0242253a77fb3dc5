"""Appearance compensation: what the warped source does not show, filled in from the appearance codebook."""

from torch import Tensor, nn

from cbtalk.model.blocks import resize, to_image, to_tokens
from cbtalk.model.codebook import Codebook
from cbtalk.model.config import TalkerConfig
from cbtalk.model.transformer import ProjectedCodes, TransformerLayer, positions, project_codes


class ToPatches(nn.Module):
    """Patches of p x p pixels as tokens, each flattened row by row, channels fastest."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, p * size, p * size) -> (B, size * size, p * p * C)."""
        batch, channels, height, width = image.shape
        p = self.patch
        split = image.permute(0, 2, 3, 1).reshape(batch, height // p, p, width // p, p, channels)
        return split.transpose(2, 3).reshape(batch, -1, p * p * channels)


class FromPatches(nn.Module):
    """The inverse of `ToPatches`; channels_last."""

    def __init__(self, patch: int, size: int) -> None:
        super().__init__()
        self.patch = patch
        self.size = size

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, size * size, p * p * C) -> (B, C, p * size, p * size)."""
        p, size = self.patch, self.size
        split = tokens.unflatten(2, (p, p, -1)).unflatten(1, (size, size)).transpose(2, 3)
        return split.reshape(tokens.shape[0], size * p, size * p, -1).permute(0, 3, 1, 2)


class AppearanceCompensation(nn.Module):
    """The appearance half of the generator: flat parameters under their released names, one step per scale."""

    config: TalkerConfig

    def add_appearance_compensation(self, config: TalkerConfig) -> None:
        """Creates the parameters (called once by the generator's constructor)."""
        dim, scales = config.appearance_dim, config.compensated_scales
        if not scales:
            return
        self.position_emb_app = positions(config, dim)
        allocation = config.appearance_allocation or config.code_allocation
        self.quantize_app = Codebook(config.appearance_codes, dim, len(scales), allocation)
        self.app_block = nn.ModuleList(TransformerLayer(dim, config.heads) for _ in range(config.appearance_layers))
        for scale, channels in zip(scales, config.channels, strict=False):
            embed, restore = _token_maps(channels, dim, scale // config.latent_size, config.latent_size)
            self.add_module(f"app_feat_emb_{scale}", embed)
            self.add_module(f"to_app_feat_{scale}", restore)

    def project_appearance_codes(self) -> list[ProjectedCodes]:
        """The whole appearance codebook as each layer sees it; empty where appearance is nowhere compensated."""
        if not self.config.compensated_scales:
            return []
        return project_codes(self.app_block, self.quantize_app.embedding.weight)

    def compensate_appearance(
        self, index: int, feature: Tensor, deformation: Tensor, codes: list[ProjectedCodes]
    ) -> Tensor:
        """One scale: the warped and occluded source feature (B, C, s, s), compensated where the configuration says so.

        The first layer's self-attention ignores the tokens whose `deformation` (B, h, h, 2) points outside the source.
        """
        if index >= len(self.config.compensated_scales):
            return feature
        rows, size = self.quantize_app.rows(index), self.config.latent_size
        ignored: Tensor | None = self._outside(deformation)
        tokens = self.embed_appearance(index, feature)
        for layer, projected in zip(self.app_block, codes, strict=True):
            tokens = layer(tokens, self.position_emb_app, projected.rows(rows), size, ignored)
            ignored = None
        restore = self.get_submodule(f"to_app_feat_{self.config.scales[index]}")
        return restore(to_image(tokens, size)) if index == 0 else restore(tokens)

    def embed_appearance(self, index: int, feature: Tensor) -> Tensor:
        """A feature (B, C, s, s) as tokens (B, latent * latent, D)."""
        embedded = self.get_submodule(f"app_feat_emb_{self.config.scales[index]}")(feature)
        return to_tokens(embedded) if index == 0 else embedded

    def appearance_loss(self, index: int, driving_feature: Tensor) -> Tensor:
        """The code loss of the driving frame's own feature (B, C, s, s) at a compensated scale."""
        return self.quantize_app.quantize(self.embed_appearance(index, driving_feature), index).loss

    def _outside(self, deformation: Tensor) -> Tensor:
        at_tokens = resize(deformation.permute(0, 3, 1, 2), self.config.latent_size)
        return (at_tokens.abs() > 1).any(dim=1).flatten(1)  # (B, T)


def _token_maps(channels: int, dim: int, patch: int, size: int) -> tuple[nn.Module, nn.Module]:
    """To tokens and back: 1 x 1 convolutions at the latent size, linear maps of patches above it."""
    if patch == 1:
        return nn.Conv2d(channels, dim, kernel_size=1), nn.Conv2d(dim, channels, kernel_size=1)
    entries = patch * patch * channels
    embed = nn.Sequential(ToPatches(patch), nn.Linear(entries, dim))
    return embed, nn.Sequential(nn.Linear(dim, entries), FromPatches(patch, size))
