"""Nearest codes and vector quantisation in plain torch: this defines what every other backend must compute."""

from typing import NamedTuple

import torch
from torch import Tensor


class NearestCode(NamedTuple):
    """The nearest code of every row."""

    indices: Tensor  # (N,) int64
    distances: Tensor  # (N,) squared Euclidean


class Quantized(NamedTuple):
    """Rows replaced by their nearest codes, and what training needs to know about it."""

    codes: Tensor  # (N, D) the nearest codes; their gradient goes straight through to the rows
    loss: Tensor  # () commitment and codebook loss
    indices: Tensor  # (N,) int64
    counts: Tensor  # (K,) int64, how many rows chose each code


def nearest_code(
    z: Tensor,  # (N, D)
    codebook: Tensor,  # (K, D)
) -> NearestCode:
    """The nearest code of every row; arguments, result and rules are those of `cbtalk.ops.nearest_code`.

    Runs on any device and in any floating dtype: dtypes narrower than float32 are computed in float32. Differentiable
    in both arguments through the distances. It does build the (N, K) scores.
    """
    dtype = torch.promote_types(torch.promote_types(z.dtype, codebook.dtype), torch.float32)
    # Under autocast the product would be taken in bfloat16, which picks wrong codes.
    with torch.autocast(z.device.type, enabled=False):
        z, codebook = z.to(dtype), codebook.to(dtype)
        # |z|^2 is the same for every code. Adding it would only round away the differences between the scores.
        scores = codebook.detach().square().sum(1) - 2 * (z.detach() @ codebook.detach().T)  # (N, K)
        # A NaN never wins, and a row of nothing but NaN takes index 0; argmin gives the first of equals.
        indices = torch.where(scores.isnan(), torch.inf, scores).argmin(1)
        distances = (z - codebook[indices]).square().sum(1)
    return NearestCode(indices, distances)


def vector_quantize(
    z: Tensor,  # (N, D)
    codebook: Tensor,  # (K, D)
    beta: float = 0.25,
) -> Quantized:
    """Every row replaced by its nearest code; arguments, result and rules are those of `cbtalk.ops.vector_quantize`."""
    indices = nearest_code(z.detach(), codebook.detach()).indices
    dtype = torch.promote_types(torch.promote_types(z.dtype, codebook.dtype), torch.float32)
    rows, chosen = z.to(dtype), codebook[indices].to(dtype)  # both (N, D)
    commitment = (chosen.detach() - rows).square().mean()
    codebook_loss = (chosen - rows.detach()).square().mean()
    # The code in value, to the last bit and for rows that are not finite as well; z in gradient.
    codes = chosen.detach().to(z.dtype) + (z - z.detach()).nan_to_num(0.0)
    counts = torch.zeros(codebook.shape[0], dtype=torch.int64, device=z.device)
    counts = counts.scatter_add(0, indices, torch.ones_like(indices))
    return Quantized(codes, beta * commitment + codebook_loss, indices, counts)
