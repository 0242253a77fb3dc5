"""Initial codes: rows of the batch, as they are or as means of clusters."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cbtalk.nn.processes import place, total
from cbtalk.ops import vector_quantize


def rows_for_codes(
    rows: Tensor,  # (H, N, D) of this process
    ignored: Tensor | None,  # (N,) bool
    wanted: Tensor,  # (H, K) bool, the same on every process
) -> tuple[Tensor, Tensor]:
    """A row (H, K, D) for each code that wants one, and which (H, K) got one: no row is given twice.

    The processes serve the wanting codes in turn, each with rows spread evenly over its batch from a random first one.
    Everyone gets the same answer, and the device is never waited for.
    """
    H, N, _ = rows.shape
    rank, processes = place()
    turn = wanted.cumsum(1) - 1
    mine = wanted & (turn % processes == rank)
    turn = turn // processes
    available = torch.full((), N, device=rows.device) if ignored is None else (~ignored).sum()
    served = mine.sum(1, keepdim=True).minimum(available)
    mine = mine & (turn < served)
    if N > 0:
        first = (torch.rand((H, 1), device=rows.device) * available).long()
        chosen = (turn * available // served.clamp(min=1) + first) % available.clamp(min=1)
        if ignored is not None:
            chosen = torch.searchsorted((~ignored).cumsum(0), chosen + 1).clamp(max=N - 1)
        found = rows[torch.arange(H, device=rows.device)[:, None], chosen]
    else:
        found = rows.new_zeros((*wanted.shape, rows.shape[-1]))
    found = found.float().masked_fill(~mine[..., None], 0.0)
    found, got = total(found, mine[..., None])
    return found, got[..., 0] > 0


def kmeans(
    rows: Tensor,  # (H, N, D) of this process
    ignored: Tensor | None,  # (N,) bool
    codebook: Tensor,  # (H, K, D): what a code stays for which there is no row
    steps: int,
    cosine: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Lloyd's k-means over the rows of all processes: codes (H, K, D), with counts (H, K) and sums of their rows.

    A cluster that loses all its rows stays where it is.
    """
    found, got = rows_for_codes(rows, ignored, torch.ones_like(codebook[..., 0], dtype=torch.bool))
    codes = torch.where(got[..., None], found, codebook.float())
    for _ in range(steps):
        part = vector_quantize(rows, codes, ignored=ignored, sums=True, backend=backend)
        counts, sums = total(part.counts[..., None], part.sums)
        means = F.normalize(sums, dim=-1) if cosine else sums / counts
        codes = torch.where(counts > 0, means, codes)
    return codes, counts[..., 0], sums
