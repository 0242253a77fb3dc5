"""Vector quantisation as a module: a codebook that is learned or follows its rows, and how its codes are used."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbtalk.nn.processes import total
from cbtalk.nn.start import kmeans, rows_for_codes
from cbtalk.ops import Quantized, QuantizedSums, vector_quantize
from cbtalk.ops.layout import is_channels_last

# Of the counts of a codebook that is learned; one that is not has a decay of its own.
_USAGE_DECAY = 0.99
# A code that has been chosen by less than this many rows stays what it is: the mean of its rows is all rounding.
_LEAST_COUNT = 1e-20


class QuantizedFeatures(NamedTuple):
    """Features replaced by their nearest codes."""

    quantized: Tensor  # shape, dtype and memory format of the features; its gradient goes straight through to them
    indices: Tensor  # int64, (N,), (B, N) or (B, H, W), with `heads` behind where there are several; -1 where ignored
    loss: Tensor  # (), float32 or wider: what training adds to its own loss
    counts: Tensor  # (heads, K) int64, how many features of this call chose each code


class VectorQuantize(nn.Module):
    """Replaces features by the nearest codes of a codebook: `cbtalk.ops.vector_quantize`.

    The quantiser of van den Oord et al., "Neural Discrete Representation Learning" (2017). With `ema`, the codebook is
    a buffer that follows the rows that choose its codes by the moving averages of that paper's appendix A.1, and the
    loss is the commitment alone; without, it is a parameter, and the loss trains it too. Counts and sums come from the
    pass that quantises. A feature is quantised with the codebook as it is before the update.

    Where `torch.distributed` is initialised, counts and sums are those of all processes, and the codebook is the same
    on each; so every process must call the module equally often. Updates happen in training mode alone; in a backward
    pass, where checkpointing calls a module again, there is none, and the codes are those of the last call before it:
    a checkpointed module is to be called once for each backward pass, and one that is compiled is not to be
    checkpointed from outside. Keep the module in float32, and use autocast for the layers around it.

    Args:
        dim: D, channels of the features.
        codes: K, codes of each codebook.
        heads: H, number of codebooks; each quantises D / H of the channels.
        ema: decay of the moving averages, in [0, 1); None for a codebook that is learned.
        cosine: whether codes and features are compared by the angle: both are normalised, and so is what is returned.
        beta: weight of the commitment in the loss.
        kmeans_steps: steps of k-means that make the codebook from the first batch; 0 for small random codes. That
            first call cannot be compiled with fullgraph=True.
        revive_below: a code that fewer rows choose, on the moving average of all processes, is replaced by a row of the
            next batch, and counts as one of average use; 0 for never.
        backend: "auto", "cpp", "cuda", "triton" or "reference".

    Attributes:
        codebook: (H, K, D / H), parameter or buffer.
        counts: (H, K), moving average of the rows that choose each code.
        sums: (H, K, D / H), moving average of the sum of those rows; with `ema` only.
        perplexity: (H,), exp of the entropy of `counts`: how many codes are in use, K if all alike.
        started: (), bool, whether k-means has made the codebook.

    Raises:
        ValueError: options out of range.
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor
    perplexity: Tensor
    started: Tensor
    _previous: Tensor

    def __init__(
        self,
        dim: int,
        codes: int,
        *,
        heads: int = 1,
        ema: float | None = 0.99,
        cosine: bool = False,
        beta: float = 0.25,
        kmeans_steps: int = 0,
        revive_below: float = 0.0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if codes < 1 or heads < 1 or dim < heads or dim % heads:
            raise ValueError(f"{dim} channels do not divide into {heads} heads of {codes} codes")
        if ema is not None and not 0 <= ema < 1:
            raise ValueError(f"ema must be in [0, 1) or None, not {ema}")
        if kmeans_steps < 0 or revive_below < 0:
            raise ValueError(f"kmeans_steps {kmeans_steps} and revive_below {revive_below} must not be negative")
        self.dim, self.codes, self.heads = dim, codes, heads
        self.ema, self.cosine, self.beta = ema, cosine, beta
        self.kmeans_steps, self.revive_below = kmeans_steps, revive_below
        self.backend = backend
        self._decay = _USAGE_DECAY if ema is None else ema

        codebook = torch.empty(heads, codes, dim // heads).uniform_(-1 / codes, 1 / codes)
        if cosine:
            codebook = F.normalize(codebook, dim=-1)
        # No code is out of use before it had its chance.
        self.register_buffer("counts", torch.full((heads, codes), max(1.0, revive_below)))
        if ema is None:
            self.codebook = nn.Parameter(codebook)
        else:
            self.register_buffer("codebook", codebook)
            self.register_buffer("sums", codebook * self.counts[..., None])
            self.register_buffer("_previous", codebook.clone(), persistent=False)
        self.register_buffer("perplexity", torch.full((heads,), float(codes)))
        self.register_buffer("started", torch.tensor(kmeans_steps == 0))
        # Asking `started` waits for the device: only until it is known.
        self._may_start = kmeans_steps > 0
        self.register_load_state_dict_post_hook(_ask_again)

    def forward(self, features: Tensor, ignored: Tensor | None = None) -> QuantizedFeatures:
        """The features' nearest codes; in training mode, also an update of the codebook.

        Args:
            features: (N, D), (B, N, D) or (B, D, H, W), also with more axes behind D. An image that is channels_last is
                read as it lies; another is copied once.
            ignored: bool, (N,), (B, N) or (B, H, W); True for a feature that does not count (padding), whatever is in
                it: index -1, zeros with gradient 0, and no part in loss, counts, k-means and revival.

        Raises:
            ValueError: shapes or dtypes that do not fit together.
            BackendError: the backend asked for cannot run; the message is the reason.
        """
        channels_last = self._with_channels_last(features)
        shape = channels_last.shape[:-1]
        rows = channels_last.reshape(-1, self.heads, self.dim // self.heads).transpose(0, 1)  # (H, N, D / H)
        if ignored is not None:
            if ignored.dtype != torch.bool or ignored.shape != shape:
                raise ValueError(f"ignored must be bool {tuple(shape)}, not {ignored.dtype} {tuple(ignored.shape)}")
            ignored = ignored.flatten()
        if self.cosine:
            # The derivative of the length of a row that is not finite would not be zero.
            counted = rows if ignored is None else rows.masked_fill(ignored[:, None], 0.0)
            rows = F.normalize(counted, dim=-1)
        found = self._quantize(rows, ignored)
        quantized = found.codes.transpose(0, 1).reshape(*shape, self.dim).to(features.dtype)
        if features.dim() > 3:
            quantized = quantized.movedim(-1, 1)
            quantized = quantized if is_channels_last(features) else quantized.contiguous()
        indices = found.indices.T.reshape(*shape, self.heads)
        indices = indices.squeeze(-1) if self.heads == 1 else indices
        return QuantizedFeatures(quantized, indices, found.loss, found.counts)

    def lookup(self, indices: Tensor) -> Tensor:
        """The codes that indices name, both as in what `forward` returns; zeros where an index is -1."""
        indices = indices[..., None] if self.heads == 1 else indices
        heads = torch.arange(self.heads, device=indices.device)
        codes = self._codebook_in_use()[heads, indices.clamp(min=0)]  # (..., H, D / H)
        codes = codes.masked_fill(indices[..., None] < 0, 0.0).flatten(-2)
        return codes.movedim(-1, 1) if codes.dim() > 3 else codes

    def extra_repr(self) -> str:
        """The options, for `print`."""
        names = ("dim", "codes", "heads", "ema", "cosine", "beta", "kmeans_steps", "revive_below", "backend")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)

    def _with_channels_last(self, features: Tensor) -> Tensor:
        if features.dim() > 3:
            features = features.movedim(1, -1)
        if features.dim() < 2 or features.shape[-1] != self.dim:
            expected = f"(N, {self.dim}), (B, N, {self.dim}) or (B, {self.dim}, H, W)"
            raise ValueError(f"features must be {expected}, not {tuple(features.shape)} with the channels last")
        return features

    def _quantize(self, rows: Tensor, ignored: Tensor | None) -> Quantized | QuantizedSums:
        again = _in_backward()
        learns = self.training and not again
        if learns:
            self._prepare(rows.detach(), ignored)
        if self.ema is None:
            codebook, gamma = self._codebook_in_use(), 1.0
        else:
            codebook, gamma = self._previous if self.training and again else self.codebook, 0.0
        if not learns or self.ema is None:
            found = vector_quantize(rows, codebook, self.beta, gamma=gamma, ignored=ignored, backend=self.backend)
            if learns:
                self._count(*total(found.counts[..., None]))
            return found
        with_sums = vector_quantize(
            rows, codebook, self.beta, gamma=gamma, ignored=ignored, sums=True, backend=self.backend
        )
        counts, sums = total(with_sums.counts[..., None], with_sums.sums)
        self._count(counts)
        self._follow(sums)
        return with_sums

    def _codebook_in_use(self) -> Tensor:
        if self.cosine and self.ema is None:
            # Of a copy: what the derivative saves must not change when codes are revived in a second call.
            return F.normalize(self.codebook.clone(), dim=-1)
        return self.codebook

    @torch.no_grad()
    def _prepare(self, rows: Tensor, ignored: Tensor | None) -> None:
        """Makes a codebook that is to be made from the first batch, and revives codes."""
        if self._may_start:
            self._start(rows, ignored)
        if self.revive_below > 0:
            found, revived = rows_for_codes(rows, ignored, self.counts < self.revive_below)
            average = self.counts.mean(1, keepdim=True)
            self.codebook.copy_(torch.where(revived[..., None], found, self.codebook))
            self.counts.copy_(torch.where(revived, average, self.counts))
            if self.ema is not None:
                self.sums.copy_(torch.where(revived[..., None], found * average[..., None], self.sums))

    @torch.compiler.disable
    def _start(self, rows: Tensor, ignored: Tensor | None) -> None:
        self._may_start = False
        if self.started:
            return
        codes, counts, sums = kmeans(rows, ignored, self.codebook, self.kmeans_steps, self.cosine, self.backend)
        self.codebook.copy_(codes)
        self.counts.copy_(counts)
        if self.ema is not None:
            self.sums.copy_(sums)
        self.started.fill_(True)

    @torch.no_grad()
    def _count(self, counts: Tensor) -> None:
        """The moving average takes in how many rows (H, K, 1) chose each code."""
        self.counts.lerp_(counts.squeeze(-1).to(self.counts.dtype), 1 - self._decay)
        share = self.counts / self.counts.sum(1, keepdim=True).clamp(min=_LEAST_COUNT)
        self.perplexity.copy_(torch.special.entr(share).sum(1).exp())

    @torch.no_grad()
    def _follow(self, sums: Tensor) -> None:
        """The moving average takes in the sums (H, K, D / H), and each code becomes the mean of its rows."""
        self.sums.lerp_(sums.to(self.sums.dtype), 1 - self._decay)
        self._previous.copy_(self.codebook)
        counts = self.counts[..., None]
        means = F.normalize(self.sums, dim=-1) if self.cosine else self.sums / counts
        self.codebook.copy_(torch.where(counts > _LEAST_COUNT, means, self.codebook))


def _in_backward() -> bool:
    """Whether a backward pass calls the module again, as checkpointing has it."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def _ask_again(module: VectorQuantize, _: Any) -> None:
    module._may_start = module.kmeans_steps > 0
