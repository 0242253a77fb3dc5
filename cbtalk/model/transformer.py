"""Transformer layers that read a codebook: self-attention over the tokens, cross-attention to the codes."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbtalk.model.blocks import Conv3x3, to_image, to_tokens
from cbtalk.model.config import TalkerConfig
from cbtalk.model.remembered import Remembered
from cbtalk.ops import codebook_attention, self_attention


class ProjectedCodes(NamedTuple):
    """A codebook seen by one cross-attention layer."""

    key: Tensor  # (K, D)
    value: Tensor  # (K, D)

    def rows(self, rows: slice) -> "ProjectedCodes":
        """A range of the codes."""
        return ProjectedCodes(self.key[rows], self.value[rows])


class Attention(nn.Module):
    """The parameters of multi-head attention, stacked as torch's own module stacks them."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)


class SelfAttention(Attention):
    """Attention among the tokens; queries and keys see the position, values do not."""

    def forward(self, tokens: Tensor, position: Tensor | None, ignored: Tensor | None) -> Tensor:
        """tokens (B, T, D), position (T, D), ignored (B, T) bool: keys that nobody attends to -> (B, T, D)."""
        dim = tokens.shape[-1]
        located = F.linear(_located(tokens, position), self.in_proj_weight[: 2 * dim], self.in_proj_bias[: 2 * dim])
        query, key = located.chunk(2, dim=-1)
        value = F.linear(tokens, self.in_proj_weight[2 * dim :], self.in_proj_bias[2 * dim :])
        return self.out_proj(self_attention(query, key, value, heads=self.heads, key_mask=ignored))


class CrossAttention(Attention):
    """Attention from the tokens to the codes. The codes are the same for every image, so they are projected apart."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim, heads)
        self._projected = Remembered[ProjectedCodes]()

    def project(self, codebook: Tensor) -> ProjectedCodes:
        """Keys and values of the whole codebook (K, D); at inference, remembered while no parameter changes."""
        return self._projected(lambda: self._project(codebook), codebook, self.in_proj_weight, self.in_proj_bias)

    def _project(self, codebook: Tensor) -> ProjectedCodes:
        dim = codebook.shape[-1]
        return ProjectedCodes(
            F.linear(codebook, self.in_proj_weight[dim : 2 * dim], self.in_proj_bias[dim : 2 * dim]),
            F.linear(codebook, self.in_proj_weight[2 * dim :], self.in_proj_bias[2 * dim :]),
        )

    def forward(self, tokens: Tensor, position: Tensor | None, codes: ProjectedCodes) -> Tensor:
        """tokens (B, T, D), position (T, D), codes of the scale -> (B, T, D)."""
        query = self.query(tokens, position)
        return self.out_proj(codebook_attention(query, codes.key, codes.value, heads=self.heads))

    def query(self, tokens: Tensor, position: Tensor | None) -> Tensor:
        """tokens (B, T, D), position (T, D) -> (B, T, D), the heads side by side."""
        dim = tokens.shape[-1]
        return F.linear(_located(tokens, position), self.in_proj_weight[:dim], self.in_proj_bias[:dim])


class TransformerLayer(nn.Module):
    """Pre-normed self-attention, cross-attention to the codes, and a convolutional feed-forward of twice the width."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(dim, heads)
        self.cross_attn = CrossAttention(dim, heads)
        self.conv1 = Conv3x3(dim, 2 * dim)
        self.conv2 = Conv3x3(2 * dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(
        self, tokens: Tensor, position: Tensor | None, codes: ProjectedCodes, size: int, ignored: Tensor | None = None
    ) -> Tensor:
        """tokens (B, size * size, D), position (size * size, D) -> (B, size * size, D)."""
        tokens = tokens + self.self_attn(self.norm1(tokens), position, ignored)
        tokens = tokens + self.cross_attn(self.norm2(tokens), position, codes)
        image = to_image(self.norm3(tokens), size)
        return tokens + to_tokens(self.conv2(F.gelu(self.conv1(image))))


def project_codes(layers: nn.ModuleList, codebook: Tensor) -> list[ProjectedCodes]:
    """The whole codebook (K, D) as each of the transformer layers sees it."""
    return [layer.cross_attn.project(codebook) for layer in layers if isinstance(layer, TransformerLayer)]


def positions(config: TalkerConfig, dim: int) -> nn.Parameter | None:
    """Embeddings of the tokens' places (T, dim), zero at first; None where the configuration goes without."""
    return nn.Parameter(torch.zeros(config.latent_size**2, dim)) if config.position_embeddings else None


def _located(tokens: Tensor, position: Tensor | None) -> Tensor:
    return tokens if position is None else tokens + position
