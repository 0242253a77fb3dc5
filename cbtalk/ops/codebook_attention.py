"""Multi-head attention over a shared codebook, and its self-attention twin with a key mask."""

from torch import Tensor

from cbtalk.reference import codebook_attention as reference


def codebook_attention(query: Tensor, key: Tensor, value: Tensor, *, heads: int, backend: str = "auto") -> Tensor:
    """softmax(Q K^T / sqrt(d)) V per head, with the keys and values of one codebook for every element of the batch.

    query (B, T, heads * d); key, value (K, heads * d). Returns (B, T, heads * d).
    """
    return reference.codebook_attention(query, key, value, heads=heads)


def self_attention(
    query: Tensor, key: Tensor, value: Tensor, *, heads: int, key_mask: Tensor | None = None, backend: str = "auto"
) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V per head, each element of the batch with its own keys.

    query (B, T, heads * d); key, value (B, S, heads * d); key_mask (B, S) bool, True for a key that is ignored.
    Returns (B, T, heads * d).
    """
    return reference.self_attention(query, key, value, heads=heads, key_mask=key_mask)
