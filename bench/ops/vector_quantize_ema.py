"""One step of a codebook that follows its rows by an exponential moving average: vector_quantize's counts and sums.

Every call begins with the same averages, so that each result can be judged.
"""

from functools import partial

import torch
from torch import Tensor

from bench.case import Case, Inputs, Judge, Setting, Thunk, judge_by
from bench.ops.nearest_code import by_distances, floor, inputs, judge_indices
from bench.peers import package
from cbtalk.ops import vector_quantize

DECAY, EPS = 0.8, 1e-5
LIBRARY = "vector-quantize-pytorch"
ONE_HOT = "one-hot in torch"


def ema_case(setting: Setting, N: int, K: int, D: int) -> Case:
    """The step without gradients."""
    library = package("vector_quantize_pytorch", LIBRARY, _library)
    return Case(
        "vector_quantize", f"{N} x ({K}, {D}), one EMA step", "fwd",
        partial(inputs, setting, N, K, D),
        _ours,
        {ONE_HOT: _one_hot, LIBRARY: library},
        _judge,
        # rows, codes, the chosen codes; the sums of the codes, their average and the new codes
        floor(N, K, D, setting.dtype, passes=2, device=setting.device),
        (ONE_HOT, LIBRARY),
    )  # fmt: skip


class _Averages:
    """Moving averages of the count and the sum of the rows of each code, float32 or wider, and the codes they give."""

    def __init__(self, codebook: Tensor) -> None:
        self.begin = codebook
        self.codes = torch.empty_like(codebook)
        self.sums = torch.empty_like(codebook, dtype=torch.promote_types(codebook.dtype, torch.float32))
        self.counts = self.sums.new_empty(codebook.shape[0])

    def reset(self) -> None:
        self.codes.copy_(self.begin)
        self.sums.copy_(self.begin)
        self.counts.fill_(1.0)

    def update(self, counts: Tensor, sums: Tensor) -> Tensor:
        """The new codes."""
        self.counts.lerp_(counts.to(self.counts.dtype), 1 - DECAY)
        self.sums.lerp_(sums.to(self.sums.dtype), 1 - DECAY)
        total = self.counts.sum()
        smoothed = (self.counts + EPS) / (total + len(self.counts) * EPS) * total
        return self.codes.copy_(self.sums / smoothed[:, None])


def _ours(z: Tensor, codebook: Tensor) -> Thunk:
    averages = _Averages(codebook)

    def step() -> Inputs:
        averages.reset()
        found = vector_quantize(z, averages.codes, gamma=0.0, sums=True)
        return found.indices, averages.update(found.counts, found.sums)

    return step


def _one_hot(z: Tensor, codebook: Tensor) -> Thunk:
    averages = _Averages(codebook)

    def step() -> Inputs:
        averages.reset()
        indices = by_distances(z, averages.codes)
        one_hot = torch.zeros(len(z), len(codebook), device=z.device, dtype=z.dtype).scatter_(1, indices[:, None], 1)
        codes = one_hot @ averages.codes
        (codes - z).square().mean()  # the commitment
        return indices, averages.update(one_hot.sum(0), one_hot.T @ z)

    return step


def _library(z: Tensor, codebook: Tensor) -> Thunk:
    from vector_quantize_pytorch import VectorQuantize

    sizes = {"dim": codebook.shape[1], "codebook_size": codebook.shape[0]}
    quantizer = VectorQuantize(**sizes, decay=DECAY, eps=EPS).to(z.device).train()
    state = quantizer._codebook

    @torch.no_grad()
    def step() -> Inputs:
        state.embed[0].copy_(codebook)
        state.embed_avg[0].copy_(codebook)
        state.cluster_size.fill_(1.0)
        _, indices, _ = quantizer(z[None])
        return indices[0], state.embed[0]

    return step


def _judge(given: Inputs) -> Judge:
    """The codes by their regret, the codebook by what float64 makes of the same codes."""
    wrong_codes = judge_indices(given)

    def judge(result: object) -> str | None:
        assert isinstance(result, tuple)
        indices, after = result
        z, codebook = (x.double() for x in given)
        averages = _Averages(codebook)
        averages.reset()
        sums = torch.zeros_like(codebook).index_add_(0, indices, z)
        exact = averages.update(indices.bincount(minlength=len(codebook)), sums)
        return wrong_codes(indices) or judge_by(exact, given[0].dtype)(after)

    return judge
