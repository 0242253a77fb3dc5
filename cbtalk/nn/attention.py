"""Attention to a codebook and among tokens, with the projections around them."""

from typing import NamedTuple

from torch import Tensor, nn

from cbtalk.ops import codebook_attention, self_attention


class ProjectedCodes(NamedTuple):
    """A codebook as one attention layer sees it."""

    key: Tensor  # (K, D)
    value: Tensor  # (K, D)


class CodebookAttention(nn.Module):
    """Multi-head attention from tokens to a codebook that the whole batch shares: `cbtalk.ops.codebook_attention`.

    The cross-attention of the paper's compensation modules. Dropout there is none.

    Args:
        dim: D, columns of the tokens.
        heads: number of heads; divides D.
        code_dim: columns of the codebook; by default D.
        bias: whether the projections add a bias.
        backend: "auto", "cpp", "cuda", "triton" or "reference".

    Raises:
        ValueError: heads that do not divide D.
    """

    def __init__(
        self, dim: int, heads: int, *, code_dim: int | None = None, bias: bool = True, backend: str = "auto"
    ) -> None:
        super().__init__()
        _check_heads(dim, heads)
        code_dim = dim if code_dim is None else code_dim
        self.heads = heads
        self.backend = backend
        self.query = nn.Linear(dim, dim, bias)
        self.key = nn.Linear(code_dim, dim, bias)
        self.value = nn.Linear(code_dim, dim, bias)
        self.out = nn.Linear(dim, dim, bias)

    def project(self, codebook: Tensor) -> ProjectedCodes:
        """Keys and values of a codebook (K, code_dim): at inference, computed once and given to every `forward`."""
        return ProjectedCodes(self.key(codebook), self.value(codebook))

    def forward(self, tokens: Tensor, codes: Tensor | ProjectedCodes, position: Tensor | None = None) -> Tensor:
        """The sums of code values that each token reads.

        Args:
            tokens: (B, T, D).
            codes: the codebook (K, code_dim), or what `project` made of it.
            position: (T, D) or (B, T, D), added to the tokens for the queries; or None.

        Returns:
            (B, T, D), in the dtype of the tokens or, under autocast, in its dtype.

        Raises:
            ValueError: shapes that do not fit together.
            BackendError: the backend asked for cannot run; the message is the reason.
        """
        key, value = codes if isinstance(codes, ProjectedCodes) else self.project(codes)
        query = self.query(_located(tokens, position))
        return self.out(codebook_attention(query, key, value, heads=self.heads, backend=self.backend))

    def extra_repr(self) -> str:
        """The options, for `print`."""
        return f"heads={self.heads}, backend={self.backend!r}"


class SelfAttention(nn.Module):
    """Multi-head attention among the tokens of each element of the batch: `cbtalk.ops.self_attention`.

    Args:
        dim: D, columns of the tokens.
        heads: number of heads; divides D.
        bias: whether the projections add a bias.
        backend: "auto", "cpp", "cuda", "triton" or "reference".

    Raises:
        ValueError: heads that do not divide D.
    """

    def __init__(self, dim: int, heads: int, *, bias: bool = True, backend: str = "auto") -> None:
        super().__init__()
        _check_heads(dim, heads)
        self.heads = heads
        self.backend = backend
        self.query_key = nn.Linear(dim, 2 * dim, bias)
        self.value = nn.Linear(dim, dim, bias)
        self.out = nn.Linear(dim, dim, bias)

    def forward(self, tokens: Tensor, position: Tensor | None = None, ignored: Tensor | None = None) -> Tensor:
        """The sums of the other tokens' values that each token reads.

        Args:
            tokens: (B, T, D).
            position: (T, D) or (B, T, D), added to the tokens for queries and keys, not for values; or None.
            ignored: (B, T) bool, True for a token that nobody attends to; an element of nothing else attends to all.

        Returns:
            (B, T, D), in the dtype of the tokens or, under autocast, in its dtype.

        Raises:
            ValueError: shapes that do not fit together, or a mask that is not bool.
            BackendError: the backend asked for cannot run; the message is the reason.
        """
        query, key = self.query_key(_located(tokens, position)).chunk(2, dim=-1)
        value = self.value(tokens)
        attended = self_attention(query, key, value, heads=self.heads, key_mask=ignored, backend=self.backend)
        return self.out(attended)

    def extra_repr(self) -> str:
        """The options, for `print`."""
        return f"heads={self.heads}, backend={self.backend!r}"


def _located(tokens: Tensor, position: Tensor | None) -> Tensor:
    return tokens if position is None else tokens + position


def _check_heads(dim: int, heads: int) -> None:
    if heads < 1 or dim < heads or dim % heads:
        raise ValueError(f"{dim} columns do not divide into {heads} heads")
