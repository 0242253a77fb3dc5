"""vector-quantize-pytorch with its quantising step served by cbtalk, and how much faster a training step is by it.

    pip install 'cbtalk[examples]' && python examples/swap_vector_quantize.py

`swap()` replaces the search for the nearest code, the gathering of the codes and the statistics of the moving average
in every quantiser of the package (1.32), Euclidean or cosine, for all calls but those that sample codes or ask for the
k best. There is no distance matrix, unless a loss asks for one, and no one-hot tensor.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cbtalk.ops import vector_quantize
from cbtalk.reference.nearest_code import QuantizedSums

try:
    from vector_quantize_pytorch import vector_quantize_pytorch as package
except ImportError:
    sys.exit("vector-quantize-pytorch is not installed, so there is nothing to swap: pip install 'cbtalk[examples]'")

ORIGINALS = {
    (owner, name): getattr(owner, name)
    for owner, name in [
        (package.Codebook, "forward"),
        (package.Codebook, "track_cluster_size_and_embed_avg"),
        (package.Codebook, "update_indices"),
        (package.Codebook, "update_ema_indices"),
        (package.VectorQuantize, "forward"),
    ]
}

# The library that answered the calls of quantisers: "cbtalk", or the reason why the package did.
CALLS: Counter[str] = Counter()

# The package compares cosines by x.e whatever the length of e, cbtalk by |e|^2 - 2 x.e: of codes as short as this,
# the first term is nothing. A power of two rounds nothing.
_SHORT = 2.0**-32


def swap() -> None:
    """Lets cbtalk serve the quantisers of the package, those that exist already too."""
    package.Codebook.forward = forward
    package.Codebook.track_cluster_size_and_embed_avg = track
    package.Codebook.update_indices = package.Codebook.update_ema_indices = update_indices
    package.VectorQuantize.forward = quantizer_forward
    package.Codebook.wants_distances = True


def swap_back() -> None:
    """Undoes `swap`."""
    for (owner, name), original in ORIGINALS.items():
        setattr(owner, name, original)


def why_not(self: Any, temperature: float, topk: int | None) -> str | None:
    """The reason why cbtalk cannot serve a call, or None."""
    if topk is not None:
        return "top-k"
    options = getattr(self.gumbel_sample, "keywords", {})
    own = getattr(self.gumbel_sample, "func", self.gumbel_sample) is not package.gumbel_sample
    samples = self.training and temperature > 0 and (options.get("stochastic") or options.get("straight_through"))
    return "sampling" if own or samples else None


@torch.amp.autocast("cuda", enabled=False)
def forward(
    self: Any,
    x: Tensor,  # (B, N, D), or (H, B, N, D) for H codebooks
    sample_codebook_temp: float | None = None,
    mask: Tensor | None = None,  # (B, N) bool, True for a row that counts
    freeze_codebook: bool = False,
    codebook_transform_fn: Callable[..., Tensor] | None = None,
    ema_update_weight: Any = None,
    accum_ema_update: bool = False,
    ema_update: bool | None = None,
    topk: int | None = None,
    update_usage: bool = True,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`Codebook.forward`: quantised rows, their indices, and the distances where they are wanted.

    Indices of rows that do not count are those of some row that does.
    """
    temperature = self.sample_codebook_temp if sample_codebook_temp is None else sample_codebook_temp
    reason = why_not(self, temperature, topk)
    CALLS[reason or "cbtalk"] += 1
    update = {"ema_update_weight": ema_update_weight, "accum_ema_update": accum_ema_update, "ema_update": ema_update}
    if reason:
        original = ORIGINALS[package.Codebook, "forward"]
        options = {"topk": topk, "update_usage": update_usage, **update}
        return original(self, x, sample_codebook_temp, mask, freeze_codebook, codebook_transform_fn, **options)

    rows, mask = _rows(x, mask)
    self.init_embed_(rows, mask=mask)
    codebook = _codebook(self, rows, mask)
    if codebook_transform_fn is not None:
        codebook = _of_each_row(self, codebook_transform_fn(codebook))
    found = _nearest(self, rows, codebook, mask)
    indices, codes = found.indices, found.codes
    if mask is not None:
        indices = indices.where(mask, indices.amax(1, keepdim=True).clamp(min=0))
    if codebook.requires_grad or self.use_cosine_sim:
        codes = _taken(codebook, indices)
    # As the package does, before the codebook changes.
    distances = _distances(self, rows, codebook).unflatten(1, x.shape[-3:-1]) if self.wants_distances else None
    if self.training and update_usage and not freeze_codebook:
        own = codebook_transform_fn is not None
        statistics = _statistics(self, rows, indices, mask) if own else (found.counts.float(), found.sums)
        self.update_codebook(rows.detach(), statistics, mask=mask, **update)
    return codes.reshape(x.shape), indices.reshape(x.shape[:-1]), distances


def _rows(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """x and mask as rows of each codebook: (H, N, D) and (H, N), N for what was B * N."""
    rows = x.float().flatten(-3, -2)
    rows = rows if x.ndim == 4 else rows[None]
    if mask is None:
        return rows, None
    return rows, mask.repeat_interleave(rows.shape[1] // mask.numel(), dim=0).flatten().expand(rows.shape[:2])


def _codebook(self: Any, rows: Tensor, mask: Tensor | None) -> Tensor:
    """The codes (H, K, D) as the rows are to see them."""
    if self.affine_param:
        self.update_affine(rows, self.embed, mask=mask)
    codebook = (self.embed if self.learnable_codebook else self.embed.detach()).float()
    if self.vq_bridge is not None:
        codebook = self.vq_bridge(codebook)
    if self.affine_param:
        codebook_spread, batch_spread = _spreads(self)
        codebook = (codebook - self.codebook_mean) * (batch_spread / codebook_spread) + self.batch_mean
    return codebook


def _spreads(self: Any) -> tuple[Tensor, Tensor]:
    """Standard deviations (H, 1, D) of codebook and batch."""
    return self.codebook_variance.clamp(min=1e-5).sqrt(), self.batch_variance.clamp(min=1e-5).sqrt()


def _of_each_row(self: Any, transformed: Tensor) -> Tensor:
    """The codes (H, N, K, D) that a transform made for each row, from (H, B, N, K, D)."""
    codebooks = transformed.flatten(1, 2)
    return package.l2norm(codebooks) if self.use_cosine_sim else codebooks


def _nearest(self: Any, rows: Tensor, codebook: Tensor, mask: Tensor | None) -> QuantizedSums:
    """The nearest of the codes (H, K, D), or of those of each row, (H, N, K, D): each row is then a batch of one."""
    ignored = None if mask is None else ~mask
    searched = (codebook * _SHORT if self.use_cosine_sim else codebook).detach()
    if codebook.ndim == 3:
        return vector_quantize(rows.detach(), searched, beta=0.0, gamma=0.0, ignored=ignored, sums=True)
    heads = rows.shape[:2]
    one = None if ignored is None else ignored.flatten()[:, None]
    found = vector_quantize(
        rows.detach().flatten(0, 1)[:, None], searched.flatten(0, 1), beta=0.0, gamma=0.0, ignored=one, sums=True
    )
    return found._replace(indices=found.indices.reshape(heads), codes=found.codes.reshape(rows.shape))


def _taken(codebook: Tensor, indices: Tensor) -> Tensor:
    """The codes (H, N, D) of some indices, with gradients to the codebook."""
    if codebook.ndim == 4:
        return codebook.take_along_dim(indices[..., None, None], dim=2).squeeze(2)
    return codebook.take_along_dim(indices[..., None], dim=1)


def _distances(self: Any, rows: Tensor, codebook: Tensor) -> Tensor:
    """The matrix (H, N, K) that some losses are made of, the larger the nearer."""
    if codebook.ndim == 4:
        apart = rows[:, :, None]
        return (apart * codebook).sum(-1) if self.use_cosine_sim else -F.pairwise_distance(apart, codebook)
    return rows @ codebook.mT if self.use_cosine_sim else -package.cdist(rows, codebook)


def track(
    self: Any,
    rows: Tensor,
    statistics: Tensor | tuple[Tensor, Tensor],  # one-hot, or counts (H, K) and sums (H, K, D)
    mask: Tensor | None = None,
    ema_update_weight: Any = None,
    accum_ema_update: bool = False,
) -> None:
    """`Codebook.track_cluster_size_and_embed_avg`: the moving averages take in what was found."""
    if isinstance(statistics, Tensor):
        original = ORIGINALS[package.Codebook, "track_cluster_size_and_embed_avg"]
        return original(self, rows, statistics, mask, ema_update_weight, accum_ema_update)
    counts, sums = statistics
    if self.affine_param:
        codebook_spread, batch_spread = _spreads(self)
        number = counts[..., None]
        sums = (sums - number * self.batch_mean) * (codebook_spread / batch_spread) + number * self.codebook_mean
    self.all_reduce_fn(counts)
    self.all_reduce_fn(sums)
    weight = ema_update_weight(sums, counts) if callable(ema_update_weight) else ema_update_weight
    for average, new in ((self.cluster_size, counts), (self.embed_avg, sums)):
        if accum_ema_update:
            package.accum_grad_(average, new)
        else:
            package.ema_inplace(average, new, self.decay, weight)


def update_indices(self: Any, x: Tensor, embed_ind: Tensor, mask: Tensor | None = None, **update: Any) -> None:
    """`Codebook.update_indices`: the moving averages take in rows whose codes were chosen before."""
    rows, mask = _rows(x, mask)
    indices = embed_ind.reshape(rows.shape[:2]).clamp(min=0)
    self.update_codebook(rows.detach(), _statistics(self, rows, indices, mask), mask=mask, **update)


def _statistics(self: Any, rows: Tensor, indices: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Counts (H, K) and sums (H, K, D) of the rows that count, by their codes."""
    counted = rows.new_ones(rows.shape[:2]) if mask is None else mask.float()
    counts = torch.zeros_like(self.cluster_size).scatter_add(1, indices, counted)
    weighted = rows.detach() * counted[..., None]
    sums = torch.zeros_like(self.embed_avg).scatter_add(1, indices[..., None].expand(rows.shape), weighted)
    return counts, sums


def quantizer_forward(self: Any, x: Tensor, indices: Tensor | None = None, *args: Any, **options: Any) -> Any:
    """`VectorQuantize.forward`, which tells its codebook whether a loss will ask for the distances."""
    by_distance = self.commitment_use_cross_entropy_loss or self.has_codebook_diversity_loss
    self._codebook.wants_distances = indices is not None or (self.training and by_distance)
    return ORIGINALS[package.VectorQuantize, "forward"](self, x, indices, *args, **options)


def step_seconds(quantizer: torch.nn.Module, x: Tensor) -> float:
    """Seconds of a forward and backward pass."""
    start = perf_counter()
    quantized, _, loss = quantizer(x)
    (quantized.square().mean() + loss.sum()).backward()
    return perf_counter() - start


def main() -> None:
    """Times a training step of the package as it is and with `swap`."""
    parser = argparse.ArgumentParser(description="How much faster vector-quantize-pytorch is with cbtalk in it.")
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--codes", type=int, default=1024)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    quantizer = package.VectorQuantize(dim=args.dim, codebook_size=args.codes, rotation_trick=False)
    x = torch.randn(1, args.rows, args.dim, requires_grad=True)
    original, swapped = [], []
    for _ in range(args.rounds + 1):  # the first is to warm up
        swap_back()
        original.append(step_seconds(quantizer, x))
        swap()
        swapped.append(step_seconds(quantizer, x))
    before, after = 1e3 * median(original[1:]), 1e3 * median(swapped[1:])
    print(f"training step, {args.rows} rows of {args.dim}, {args.codes} codes:")
    print(f"original {before:.2f} ms, with cbtalk {after:.2f} ms: {before / after:.1f} times as fast")


if __name__ == "__main__":
    main()
