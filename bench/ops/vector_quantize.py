"""vector_quantize with its gradients and with a moving average, against one-hot codes in torch and a library."""

from functools import partial

import torch
from torch import Tensor

from bench.case import Case, Inputs, Judge, Setting, Thunk, judge_by
from bench.ops.nearest_code import by_distances, floor, inputs, judge_indices, sizes
from bench.ops.vector_quantize_ema import ONE_HOT, ema_case
from bench.peers import COMPILED, compile_here
from cbtalk.ops import vector_quantize

BETA = 0.25  # of vector_quantize by default


def cases(setting: Setting) -> list[Case]:
    """Training the codes by their gradients, also with rows as autocast gives them; then by a moving average."""
    (first, *others), last = sizes(setting), sizes(setting)[-1]
    gradients = [_case(setting, *first, (ONE_HOT,)), *(_case(setting, *size) for size in others)]
    mixed = [_mixed_case(setting, *first)] if setting.dtype == torch.float32 else []
    return [*gradients, *mixed, *(ema_case(setting, *size) for size in (first, last))]


def _case(setting: Setting, N: int, K: int, D: int, shown: tuple[str, ...] = ()) -> Case:
    return Case(
        "vector_quantize", f"{N} x ({K}, {D})", "bwd",
        partial(inputs, setting, N, K, D),
        _train,
        {ONE_HOT: partial(_train_one_hot, False), COMPILED: partial(_train_one_hot, True)},
        _judge_gradients,
        # rows, codes, chosen codes, what arrives there and both gradients: three times the rows, two times the codes
        floor(N, K, D, setting.dtype, passes=2, device=setting.device),
        shown,
    )  # fmt: skip


def _mixed_case(setting: Setting, N: int, K: int, D: int) -> Case:
    def rows_in_bfloat16(generator: torch.Generator) -> Inputs:
        z, codebook = inputs(setting, N, K, D, generator)
        return z.bfloat16(), codebook

    in_float32 = "cbtalk, rows in float32"
    return Case(
        "vector_quantize", f"{N} x ({K}, {D}), rows in bfloat16", "bwd",
        rows_in_bfloat16,
        _train,
        {in_float32: lambda z, codebook: _train(z.float(), codebook)},
        _judge_gradients,
        floor(N, K, D, setting.dtype, passes=2, device=setting.device),
        (in_float32,),
    )  # fmt: skip


def _train(z: Tensor, codebook: Tensor) -> Thunk:
    def step() -> tuple[Tensor, ...]:
        leaves = z.detach().requires_grad_(), codebook.detach().requires_grad_()
        found = vector_quantize(*leaves)
        return _gradients(found.codes, found.loss, found.indices, *leaves)

    return step


def _one_hot(rows: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As most models write it, the released one among them: all distances, one-hot codes, a product with them."""
    indices = by_distances(rows, codes)
    one_hot = torch.zeros(len(rows), len(codes), device=rows.device, dtype=rows.dtype).scatter_(1, indices[:, None], 1)
    one_hot.sum(0)  # the counts
    return *_straight_through(rows, one_hot @ codes), indices


def _train_one_hot(compiled: bool, z: Tensor, codebook: Tensor) -> Thunk:
    quantize = compile_here(_one_hot) if compiled else _one_hot

    def step() -> tuple[Tensor, ...]:
        leaves = z.detach().requires_grad_(), codebook.detach().requires_grad_()
        return _gradients(*quantize(*leaves), *leaves)

    return step


def _straight_through(rows: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The codes with the gradient to the rows, and the loss."""
    loss = BETA * (chosen.detach() - rows).square().mean() + (chosen - rows.detach()).square().mean()
    return rows + (chosen - rows).detach(), loss


def _gradients(codes: Tensor, loss: Tensor, indices: Tensor, z: Tensor, codebook: Tensor) -> tuple[Tensor, ...]:
    """(indices, loss, both gradients); what arrives at the codes is as large as they are."""
    return indices, loss.detach(), *torch.autograd.grad((codes, loss), (z, codebook), (codes.detach(), None))


def _judge_gradients(given: Inputs) -> Judge:
    """The codes by their regret, the rest by what float64 makes of the same codes."""
    wrong_codes = judge_indices(given)
    # In 16 bits torch, which computes it there, adds the rows of a code up in 16 bits.
    scales = (1, 1, 1) if given[0].dtype == torch.float32 else (1, 1, 30)

    def judge(result: object) -> str | None:
        assert isinstance(result, tuple)
        indices, *rest = result
        z, codebook = (x.double().requires_grad_() for x in given)
        exact = _gradients(*_straight_through(z, codebook[indices]), indices, z, codebook)
        return wrong_codes(indices) or judge_by(exact[1:], given[0].dtype, scales=scales)(rest)

    return judge
