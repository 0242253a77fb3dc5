"""The meaning of "right" for an op: an error budget against float64, instead of a table of tolerances."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def assert_error_budget(actual: Tensor, reference: Tensor, exact: Tensor) -> None:
    """The kernel errs at most twice as much as plain torch in the same dtype, plus one rounding.

    Held for the largest and for the mean error over the elements: the first catches one wrong element, the second a
    small bias everywhere.

    Args:
        actual: what the kernel gave, any shape.
        reference: the reference op in the kernel's dtype, the same shape.
        exact: the reference op in float64, the same shape.
    """
    assert actual.dtype == reference.dtype, f"dtype {actual.dtype}, the reference gives {reference.dtype}"
    assert actual.shape == reference.shape == exact.shape, f"shapes {actual.shape}, {reference.shape}, {exact.shape}"
    assert exact.dtype == torch.float64, "the yardstick must be float64"
    if actual.numel() == 0:
        return
    finite = exact.isfinite()
    torch.testing.assert_close(actual[~finite].double(), exact[~finite], rtol=0, atol=0, equal_nan=True)
    if not finite.any():
        return
    yardstick = exact[finite]
    error = (actual[finite].double() - yardstick).abs()
    allowed = (reference[finite].double() - yardstick).abs()
    rounding = yardstick.abs() * (torch.finfo(actual.dtype).eps / 2)
    for what, reduce in (("largest", torch.amax), ("mean", torch.mean)):
        found, budget = reduce(error).item(), (2 * reduce(allowed) + reduce(rounding)).item()
        assert found <= budget, f"{what} error {found:.3e}, allowed {budget:.3e}"  # a NaN fails too


def assert_nearest(indices: Tensor, z: Tensor, codebook: Tensor) -> None:
    """The codes are the nearest in float64 where that is decided beyond rounding, and elsewhere as good as the nearest.

    Args:
        indices: (N,) int64, the answer under test.
        z: (N, D) and codebook: (K, D), in the dtype whose rounding counts.
    """
    exact_z, exact_codebook = z.double(), codebook.double()
    distances = torch.stack([(row - exact_codebook).square().sum(1) for row in exact_z])  # (N, K)
    nearest, order = distances.sort(dim=1, stable=True)
    length = exact_codebook.norm(dim=1).amax()
    scale = length.square() + 2 * exact_z.norm(dim=1) * length  # (N,) what the compared scores are made of
    bound = 2 * z.shape[1] ** 0.5 * torch.finfo(z.dtype).eps * scale
    regret = distances.gather(1, indices[:, None]).squeeze(1) - nearest[:, 0]
    assert (regret <= bound).all(), f"{int((regret > bound).sum())} codes are not the nearest"
    if codebook.shape[0] > 1:
        decided = nearest[:, 1] - nearest[:, 0] > bound
        assert torch.equal(indices[decided], order[decided, 0])


def uneven(out: Tensor) -> Tensor:
    """A gradient of an output, the same for every dtype: numbers that float16 holds."""
    grad = torch.linspace(-1, 2, out.numel(), dtype=torch.float64).view(out.shape).mul(40).sin()
    return grad.half().to(device=out.device, dtype=out.dtype)


def with_gradients(op: Callable[..., Tensor], inputs: Sequence[Tensor], **arguments: object) -> list[Tensor]:
    """[output, gradient of each input] for a fixed, uneven gradient of the output."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    out = op(*leaves, **arguments)
    return [out.detach(), *torch.autograd.grad(out, leaves, uneven(out))]


def assert_op_right(
    op: Callable[..., Tensor],
    plain: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    *,
    backend: str = "cpp",
    **arguments: object,
) -> None:
    """Output and gradients of a backend against the op's reference in the inputs' dtype, judged in float64."""
    actual = with_gradients(op, inputs, backend=backend, **arguments)
    expected = with_gradients(plain, inputs, **arguments)
    exact = with_gradients(plain, [x.double() for x in inputs], **arguments)
    for one, other, truth in zip(actual, expected, exact, strict=True):
        assert_error_budget(one, other, truth)
