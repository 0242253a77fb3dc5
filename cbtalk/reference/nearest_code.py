"""Nearest codes and vector quantisation in plain torch: this defines what every other backend must compute."""

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor


class NearestCode(NamedTuple):
    """The nearest code of every row; (..., N) is (N,), or (H, N) where there are H codebooks."""

    indices: Tensor  # (..., N) int64; -1 for a row that is ignored
    distances: Tensor  # (..., N) squared Euclidean; 0 for a row that is ignored


class Quantized(NamedTuple):
    """Rows replaced by their nearest codes, and what training needs to know about it."""

    codes: Tensor  # (..., N, D) the nearest codes; their gradient goes straight through to the rows
    loss: Tensor  # () commitment and codebook loss
    indices: Tensor  # (..., N) int64
    counts: Tensor  # (..., K) int64, how many rows chose each code


class QuantizedSums(NamedTuple):
    """`Quantized`, and the sums from which an exponential moving average of the codes is made."""

    codes: Tensor  # (..., N, D)
    loss: Tensor  # ()
    indices: Tensor  # (..., N) int64
    counts: Tensor  # (..., K) int64
    sums: Tensor  # (..., K, D) sum of the rows that chose each code


def nearest_code(
    z: Tensor,  # (..., N, D)
    codebook: Tensor,  # (..., K, D)
    *,
    ignored: Tensor | None = None,  # (..., N) bool
) -> NearestCode:
    """The nearest code of every row; arguments, result and rules are those of `cbtalk.ops.nearest_code`.

    Runs on any device and in any floating dtype: dtypes narrower than float32 are computed in float32. Differentiable
    in both arguments through the distances. It does build the (N, K) scores.
    """
    z, codebook = (x.to(wide(z, codebook)) for x in (z, codebook))
    # Under autocast the product would be taken in bfloat16, which picks wrong codes. The meta device has none.
    device = z.device.type
    with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
        # |z|^2 is the same for every code. Adding it would only round away the differences between the scores.
        product = z.detach() @ codebook.detach().mT  # (..., N, K)
        scores = codebook.detach().square().sum(-1)[..., None, :] - 2 * product
        # A NaN never wins, and a row of nothing but NaN takes index 0; argmin gives the first of equals.
        indices = torch.where(scores.isnan(), torch.inf, scores).argmin(-1)
        distances = _without(ignored, z - chosen_rows(codebook, indices)).square().sum(-1)
    return NearestCode(indices if ignored is None else indices.masked_fill(ignored, -1), distances)


def vector_quantize(
    z: Tensor,  # (..., N, D)
    codebook: Tensor,  # (..., K, D)
    beta: float = 0.25,
    *,
    gamma: float = 1.0,
    ignored: Tensor | None = None,  # (..., N) bool
) -> QuantizedSums:
    """Every row replaced by its nearest code; arguments, result and rules are those of `cbtalk.ops.vector_quantize`."""
    indices = nearest_code(z.detach(), codebook.detach(), ignored=ignored).indices
    dtype = wide(z, codebook)
    rows, chosen = z.to(dtype), chosen_rows(codebook, indices).to(dtype)  # both (..., N, D)
    commitment = _mean_square(chosen.detach() - rows, ignored) if beta else 0.0
    codebook_loss = _mean_square(chosen - rows.detach(), ignored) if gamma else 0.0
    loss = rows.new_zeros(()) + beta * commitment + gamma * codebook_loss
    # The code in value, to the last bit and for rows that are not finite as well; z in gradient.
    codes = chosen.detach().to(z.dtype) + (z - z.detach()).nan_to_num(0.0)
    counts, sums = _counts_and_sums(_without(ignored, rows.detach()), codebook, indices)
    return QuantizedSums(_without(ignored, codes), loss, indices, counts, sums)


def wide(z: Tensor, codebook: Tensor) -> torch.dtype:
    """The dtype that rows and codes are compared and summed in: float32 or wider."""
    return torch.promote_types(torch.promote_types(z.dtype, codebook.dtype), torch.float32)


def chosen_rows(
    codebook: Tensor,  # (..., K, D)
    indices: Tensor,  # (..., N); -1 gives any row
) -> Tensor:
    """The rows (..., N, D) of a codebook, or of each of H codebooks, that indices name."""
    if codebook.dim() == 2:
        return codebook[indices]
    heads = torch.arange(codebook.shape[0], device=indices.device)[:, None]
    return codebook[heads, indices]


def sum_by_code(
    values: Tensor,  # (..., N, D), zero where the index is -1
    indices: Tensor,  # (..., N)
    codes: int,  # K
) -> Tensor:
    """The sum (..., K, D) of the values of each code."""
    heads = values.shape[:-2]
    places = indices.clamp(min=0)
    if heads:
        places = places + codes * torch.arange(heads[0], device=indices.device)[:, None]
    flat = values.new_zeros((codes * heads.numel(), values.shape[-1]))
    return flat.index_add(0, places.flatten(), values.flatten(0, -2)).reshape(*heads, codes, values.shape[-1])


def _counts_and_sums(rows: Tensor, codebook: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    codes = codebook.shape[-2]
    counts = sum_by_code((indices >= 0).long()[..., None], indices, codes)
    return counts.squeeze(-1), sum_by_code(rows, indices, codes)


def _mean_square(difference: Tensor, ignored: Tensor | None) -> Tensor:
    """The mean over the rows that count."""
    if ignored is None:
        return difference.square().mean()
    counted = (~ignored).sum() * difference.shape[-1]
    return _without(ignored, difference).square().sum() / counted


def _without(ignored: Tensor | None, rows: Tensor) -> Tensor:
    """rows (..., N, D) with zeros, in value and gradient, where they are ignored."""
    return rows if ignored is None else rows.masked_fill(ignored[..., None], 0.0)
