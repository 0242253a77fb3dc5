"""The cases that bench/ops/<op>.py hands to the benchmarks of the CPU and the GPU: `cases(setting) -> list[Case]`."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bench.work import Work

Inputs = tuple[Tensor, ...]
Thunk = Callable[[], object]

# Given the inputs, does what is not timed (an index built, leaves that require gradients) and gives what is.
Prepare = Callable[..., Thunk]

# None for a right result, else what is wrong with it.
Judge = Callable[[object], str | None]

BATCHES = (1, 4, 16)  # of a sweep
TOLERANCES = {torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float16: 1e-3}  # relative errors in the 2-norm


@dataclass(frozen=True)
class Setting:
    """The device and dtype of the cases; the paper's shapes in a batch, or a sweep of batches and odd sizes."""

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    batch: int = 1
    sweep: bool = False


@dataclass(frozen=True)
class Case:
    """One size of one op: ours against its peers on the same inputs.

    `ours` calls the public op with backend="auto", so that a benchmark can force a backend. `make_inputs` makes them on
    the generator's device. A peer that cannot run here is a string: the reason. `judge(inputs)` computes what is right
    and gives who judges by it: ours is timed only if it is right, a peer is timed with the remark beside it. `shown`
    are the peers beside which README shows the case.
    """

    op: str
    shape: str
    direction: str  # "fwd", or "bwd": forward and backward together
    make_inputs: Callable[[torch.Generator], Inputs]
    ours: Prepare
    peers: Mapping[str, Prepare | str] = field(default_factory=dict)
    judge: Callable[[Inputs], Judge] = field(default=lambda inputs: lambda result: None)
    work: Work | None = None
    shown: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.op} {self.shape}" + (", forward + backward" if self.direction == "bwd" else "")


def timed(function: Callable[..., Tensor], direction: str, layout: Callable[[Tensor], Tensor] | None = None) -> Prepare:
    """`function(*inputs)`, or with gradients: (output, gradient of each input) for an uneven gradient of the output.

    The output has the shape of the first input. `layout` lays the inputs out as the function wants them, untimed.
    """

    def prepare(*inputs: Tensor) -> Thunk:
        leaves = [x if layout is None else layout(x) for x in inputs]
        if direction == "fwd":
            return lambda: function(*leaves)
        leaves = [x.detach().requires_grad_() for x in leaves]
        uneven = torch.empty_like(inputs[0]).copy_(_waves(inputs[0]))
        grad = uneven if layout is None else layout(uneven)

        def run() -> Inputs:
            out = function(*leaves)
            return out.detach(), *torch.autograd.grad(out, leaves, grad)

        return run

    return prepare


def _waves(like: Tensor) -> Tensor:
    return torch.linspace(-1, 2, like.numel(), dtype=torch.float64).sin().view(like.shape)


def judge_by(
    exact: object,
    dtype: torch.dtype,
    *,
    scales: Sequence[float] = (1, 1, 1, 1),
    restore: Callable[[Tensor], Tensor] = lambda x: x,
) -> Judge:
    """Judges results by those of float64: a tensor, or the output and the gradients that the result has.

    Args:
        exact: one tensor, or several.
        scales: of the tolerance of each, where the op itself loses more.
        restore: gives a result of another layout the layout of `exact`.
    """
    expected = _tensors(exact)

    def judge(result: object) -> str | None:
        for number, (one, truth, scale) in enumerate(zip(_tensors(result), expected, scales, strict=False)):
            found = restore(one).reshape(truth.shape).to(truth)
            error = ((found - truth).norm() / truth.norm()).item()
            if not error < scale * TOLERANCES[dtype]:
                name = f"gradient {number}" if number else "output"
                return f"{name} off by {error:.1e} of its norm" if math.isfinite(error) else f"{name} is not finite"
        return None

    return judge


def _tensors(result: object) -> Sequence[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)  # type: ignore[call-overload]
