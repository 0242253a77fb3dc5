"""Multi-head attention over a codebook that the whole batch shares, and the masked self-attention beside it."""

import torch.nn.functional as F
from torch import Tensor


def codebook_attention(query: Tensor, key: Tensor, value: Tensor, *, heads: int) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V per head, with the keys and values of one codebook for every element of the batch.

    Args:
        query: (B, T, heads * d).
        key: (K, heads * d).
        value: (K, heads * d).
        heads: number of heads; head h owns the columns [h * d, (h + 1) * d).

    Returns:
        (B, T, heads * d), contiguous.
    """
    # A codebook does not know the batch: B x T queries are one long list, and nothing is repeated B times.
    rows = query.reshape(1, -1, query.shape[-1])  # (1, B * T, heads * d)
    return self_attention(rows, key[None], value[None], heads=heads).reshape(query.shape)


def self_attention(query: Tensor, key: Tensor, value: Tensor, *, heads: int, key_mask: Tensor | None = None) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V per head, each element of the batch with its own keys.

    Args:
        query: (B, T, heads * d).
        key: (B, S, heads * d).
        value: (B, S, heads * d).
        heads: number of heads; head h owns the columns [h * d, (h + 1) * d).
        key_mask: (B, S) bool, True for a key that is ignored; an element whose keys are all masked attends to all.

    Returns:
        (B, T, heads * d), contiguous.
    """
    attended = None
    if key_mask is not None:
        attended = ~key_mask | key_mask.all(-1, keepdim=True)  # (B, S)
        attended = attended[:, None, None, :]  # (B, 1, 1, S)
    out = F.scaled_dot_product_attention(
        _split_heads(query, heads), _split_heads(key, heads), _split_heads(value, heads), attn_mask=attended
    )  # (B, heads, T, d)
    return out.transpose(1, 2).reshape(query.shape)


def _split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, heads * d) -> (B, heads, T, d), a view."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
