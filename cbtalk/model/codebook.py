"""Codebooks of motion and appearance, and which of their codes each scale may use."""

from torch import Tensor, nn

from cbtalk.model.blocks import full_precision, without_autocast
from cbtalk.model.config import CodeAllocation
from cbtalk.ops import Quantized, vector_quantize

COMMITMENT = 0.25


class Codebook(nn.Module):
    """K codes of D numbers shared by all scales; finer scales may use more of them.

    Scale n = 0 .. S - 1 uses, by `allocation`: "shared", the first (n + 1) / S of the codes; "disjoint", a slice of its
    own; "unsplit", every code.
    """

    def __init__(self, codes: int, dim: int, scales: int, allocation: CodeAllocation) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, dim)
        nn.init.uniform_(self.embedding.weight, -1 / codes, 1 / codes)
        self.scales = scales
        self.allocation = allocation

    def rows(self, scale: int) -> slice:
        """The rows of the codebook that scale number `scale` (0 = the coarsest) may use."""
        codes = self.embedding.num_embeddings
        if self.allocation == "unsplit":
            return slice(0, codes)
        start = codes * scale // self.scales if self.allocation == "disjoint" else 0
        return slice(start, codes * (scale + 1) // self.scales)

    def quantize(self, tokens: Tensor, scale: int) -> Quantized:
        """The nearest of the scale's codes for tokens (..., D), in float32 at least; `codes` has the tokens' shape."""
        with without_autocast(tokens):
            flat = full_precision(tokens).reshape(-1, tokens.shape[-1])
            codes = self.embedding.weight[self.rows(scale)].to(flat.dtype)
            quantized = vector_quantize(flat, codes, COMMITMENT)
            return quantized._replace(codes=quantized.codes.reshape(tokens.shape))
