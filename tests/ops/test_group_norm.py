from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cbtalk.errors import BackendError
from cbtalk.ops import group_norm
from cbtalk.reference import group_norm as reference
from tests.helpers.checks import assert_error_budget
from tests.helpers.cpp import at_every_level, needs_cpp, use_level

DTYPES = [torch.float32, torch.bfloat16]


def make(
    batch: int, channels: int, height: int, width: int, dtype: torch.dtype = torch.float32, mean: float = 0.5
) -> tuple[Tensor, Tensor, Tensor]:
    x = (torch.randn(batch, channels, height, width) + mean).to(dtype)
    return x.to(memory_format=torch.channels_last), torch.randn(channels), torch.randn(channels)


def grads(op: Callable[..., Tensor], *tensors: Tensor, **options: Any) -> tuple[Tensor, ...]:
    *inputs, grad = tensors
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    y = op(*leaves, **options)
    return y.detach(), *torch.autograd.grad(y, leaves, grad.to(y.dtype))


def assert_right(x: Tensor, weight: Tensor, bias: Tensor, **options: Any) -> None:
    grad = torch.randn_like(x)
    ours = grads(group_norm, x, weight, bias, grad, backend="cpp", **options)
    torchs = grads(reference.group_norm, x, weight, bias, grad, **options)
    exact = grads(reference.group_norm, x.double(), weight.double(), bias.double(), grad.double(), **options)
    for mine, theirs, truth in zip(ours, torchs, exact, strict=True):
        assert_error_budget(mine, theirs, truth)


@needs_cpp
@at_every_level
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("shape", [(2, 64, 32, 32), (1, 96, 17, 31), (3, 40, 1, 1), (1, 6, 40, 40)])
def test_values_and_gradients_at_every_level(
    level: str, dtype: torch.dtype, silu: bool, shape: tuple[int, int, int, int]
) -> None:
    torch.manual_seed(1)
    with use_level(level):
        assert_right(*make(*shape, dtype=dtype), groups=2, eps=1e-6, silu=silu)


@needs_cpp
@settings(max_examples=30, deadline=None)
@given(
    batch=st.integers(1, 3),
    groups=st.integers(1, 5),
    width=st.integers(1, 9),
    size=st.tuples(st.integers(1, 24), st.integers(2, 24)),
    silu=st.booleans(),
)
def test_any_size(batch: int, groups: int, width: int, size: tuple[int, int], silu: bool) -> None:
    torch.manual_seed(batch * 1000 + groups * 100 + width)
    x, weight, bias = make(batch, groups * width, *size)
    grad, options = torch.randn_like(x), {"groups": groups, "eps": 1e-3, "silu": silu}
    ours = grads(group_norm, x, weight, bias, grad, backend="cpp", **options)
    exact = grads(reference.group_norm, x.double(), weight.double(), bias.double(), grad.double(), **options)
    for mine, truth in zip(ours, exact, strict=True):  # too few elements for an error budget
        torch.testing.assert_close(mine.double(), truth, rtol=1e-5, atol=2e-5)


@needs_cpp
def test_a_large_mean_does_not_drown_the_variance() -> None:
    torch.manual_seed(2)
    x, weight, bias = make(1, 32, 64, 64, mean=1000.0)
    ours = group_norm(x, weight, bias, groups=8, eps=1e-6, backend="cpp")
    exact = reference.group_norm(x.double(), weight.double(), bias.double(), groups=8, eps=1e-6)
    assert (ours - exact).abs().max() < 1e-3


@needs_cpp
def test_the_number_of_threads_changes_nothing() -> None:
    x, weight, bias = make(2, 64, 48, 48)
    grad = torch.randn_like(x)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(grads(group_norm, x, weight, bias, grad, groups=8, eps=1e-6, silu=True, backend="cpp"))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@needs_cpp
def test_the_gradient_of_an_output_used_in_nchw_is_right() -> None:
    x, weight, bias = make(2, 8, 5, 7)
    grad = torch.randn(2, 8, 5, 7)  # contiguous, not channels_last
    ours = grads(group_norm, x, weight, bias, grad, groups=2, eps=1e-6, backend="cpp")
    theirs = grads(reference.group_norm, x, weight, bias, grad, groups=2, eps=1e-6)
    for mine, truth in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, truth, rtol=1e-4, atol=1e-5)


@needs_cpp
def test_the_layout_is_kept_and_an_empty_batch_passes() -> None:
    x, weight, bias = make(2, 8, 4, 4)
    assert group_norm(x, weight, bias, groups=2, eps=1e-6).is_contiguous(memory_format=torch.channels_last)
    assert group_norm(x[:0], weight, bias, groups=2, eps=1e-6).shape == (0, 8, 4, 4)


def test_other_layouts_and_dtypes_go_to_torch_and_say_why_when_forced() -> None:
    x, weight, bias = make(1, 8, 4, 4)
    nchw = x.contiguous()
    torch.testing.assert_close(
        group_norm(nchw, weight, bias, groups=2, eps=1e-6), group_norm(x, weight, bias, groups=2, eps=1e-6)
    )
    with pytest.raises(BackendError, match=r"channels_last|compiled library"):
        group_norm(nchw, weight, bias, groups=2, eps=1e-6, backend="cpp")
    with pytest.raises(BackendError, match=r"float32|compiled library"):
        group_norm(x.double(), weight.double(), bias.double(), groups=2, eps=1e-6, backend="cpp")


@needs_cpp
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(3, 8), (2, 8, 5), (2, 8, 5, 6), (2, 8, 3, 4, 5), (0, 8, 5)])
def test_any_rank_with_and_without_affine_parameters(shape: tuple[int, ...], affine: bool) -> None:
    torch.manual_seed(3)
    rows = torch.randn(shape[0], *shape[2:], shape[1])
    parameters = (torch.randn(8), torch.randn(8)) if affine else ()
    for x in (rows.movedim(-1, 1), rows.movedim(-1, 1).contiguous()):  # channels innermost, and not
        backend = "cpp" if x.movedim(1, -1).is_contiguous() else "auto"
        leaves = [tensor.clone().requires_grad_() for tensor in (x, *parameters)]
        y = group_norm(*leaves, groups=2, eps=1e-5, silu=True, backend=backend)
        assert y.shape == x.shape and (x.numel() == 0 or y.stride() == x.stride())
        exact = [tensor.double().requires_grad_() for tensor in (x, *parameters)]
        truth = reference.group_norm(*exact, groups=2, eps=1e-5, silu=True)
        torch.testing.assert_close(y.double(), truth, rtol=1e-5, atol=2e-5)
        grad = torch.randn_like(x)
        found = torch.autograd.grad(y, leaves, grad)
        for one, other in zip(found, torch.autograd.grad(truth, exact, grad.double()), strict=True):
            torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", ["channels", "columns", "rows"])
def test_slices_are_normalised_as_dense_tensors_are(name: str) -> None:
    x, weight, bias = make(2, 16, 6, 8)
    part = {"channels": x[:, :8], "columns": x[:, :8, :, ::2], "rows": x[:, 8:, 1:5]}[name]
    options: dict[str, Any] = {"groups": 2, "eps": 1e-5}
    expected = reference.group_norm(part.contiguous(), weight[:8], bias[:8], **options)
    torch.testing.assert_close(group_norm(part, weight[:8], bias[:8], **options), expected)


@needs_cpp
def test_a_tensor_of_any_rank_is_never_copied_into_the_layout_of_the_kernel() -> None:
    gaps = torch.randn(2, 6, 5, 16)[..., ::2].movedim(-1, 1)  # channels innermost, but not dense
    torch.testing.assert_close(
        group_norm(gaps[:, :, 0], groups=2, eps=1e-5), reference.group_norm(gaps[:, :, 0], groups=2, eps=1e-5)
    )
    with pytest.raises(BackendError, match="channels_last"):
        group_norm(gaps[:, :, 0], groups=2, eps=1e-5, backend="cpp")


def test_wrong_shapes_are_named() -> None:
    x, weight, bias = make(1, 8, 4, 4)
    with pytest.raises(ValueError, match="groups"):
        group_norm(x, weight, bias, groups=3, eps=1e-6)
    with pytest.raises(ValueError, match="weight"):
        group_norm(x, weight[:4], bias, groups=2, eps=1e-6)


@needs_cpp
@pytest.mark.parametrize("dtype", DTYPES)
def test_registration(dtype: torch.dtype) -> None:
    x, weight, bias = make(2, 8, 5, 6, dtype=dtype)
    for leaves in ((x, weight, bias), [tensor.detach().requires_grad_() for tensor in (x, weight, bias)]):
        torch.library.opcheck(torch.ops.cbtalk.group_norm.default, (*leaves, 2, 1e-6, True))
    y, mean, rstd = torch.ops.cbtalk.group_norm(x, weight, bias, 2, 1e-6, True)
    torch.library.opcheck(torch.ops.cbtalk.group_norm_backward.default, (y, x, weight, bias, mean, rstd, 2, True))


def test_gradcheck_of_the_reference() -> None:
    x, weight, bias = (tensor.double().requires_grad_() for tensor in make(2, 4, 3, 3))
    assert torch.autograd.gradcheck(lambda *a: group_norm(*a, groups=2, eps=1e-6, silu=True), (x, weight, bias))


@needs_cpp
def test_compiles_whole_and_exports() -> None:
    class Norm(torch.nn.Module):
        def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return group_norm(x, weight, bias, groups=2, eps=1e-6, silu=True)

    x, weight, bias = make(2, 8, 5, 6)
    grad = torch.randn_like(x)
    compiled = torch.compile(Norm(), fullgraph=True, backend="aot_eager", dynamic=True)
    for mine, truth in zip(grads(compiled, x, weight, bias, grad), grads(Norm(), x, weight, bias, grad), strict=True):
        torch.testing.assert_close(mine, truth)
    exported = torch.export.export(Norm(), (x, weight, bias)).module()
    torch.testing.assert_close(exported(x, weight, bias), Norm()(x, weight, bias))
