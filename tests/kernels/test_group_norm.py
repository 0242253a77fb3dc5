"""group_norm in Triton: values and gradients, and what the compiler makes of Triton's kernels."""

from typing import Any

import pytest
import torch
from torch import Tensor

from cbtalk import _triton
from cbtalk.errors import BackendError
from cbtalk.ops import group_norm
from cbtalk.reference import group_norm as reference
from tests.helpers.checks import assert_error_budget
from tests.kernels.aot import compile_in_process
from tests.kernels.where import Place, in_triton, triton
from tests.ops.test_group_norm import grads

needs_triton = pytest.mark.skipif(_triton.why_not_triton() is not None, reason=str(_triton.why_not_triton()))
pytestmark = needs_triton

DTYPES = [torch.float32, torch.float16]
WHOLE = [  # a group fits on the chip: B, C, H, W, groups
    (2, 64, 16, 16, 32),
    (1, 32, 17, 31, 4),
    (3, 40, 1, 1, 5),
    (2, 16, 12, 12, 1),
]
CUT = [  # a group is cut into chunks
    (2, 96, 17, 31, 8),
    (1, 6, 40, 40, 2),
    (1, 66, 70, 3, 11),
    (1, 64, 90, 47, 2),
    (2, 5, 9, 7, 5),
]


def make(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, mean: float = 0.5) -> tuple[Tensor, ...]:
    B, C, H, W = shape
    x = (torch.randn(B, C, H, W) + mean).to(dtype).to(memory_format=torch.channels_last)
    grad = torch.randn(B, C, H, W).to(dtype).to(memory_format=torch.channels_last)
    return x, torch.randn(C), torch.randn(C), grad


def assert_right(place: Place, x: Tensor, weight: Tensor, bias: Tensor, grad: Tensor, **options: Any) -> None:
    tensors = place.put(x, weight, bias, grad)
    ours = grads(group_norm, *tensors, backend=place.backend, **options)
    torchs = grads(reference.group_norm, *tensors, **options)
    exact = grads(reference.group_norm, *(tensor.double() for tensor in tensors), **options)
    for mine, theirs, truth in zip(ours, torchs, exact, strict=True):
        assert_error_budget(mine, theirs, truth)


@in_triton
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", WHOLE + CUT)
def test_values_and_gradients(place: Place, shape: tuple[int, ...], dtype: torch.dtype, silu: bool) -> None:
    assert_right(place, *make(shape[:4], dtype), groups=shape[4], eps=1e-6, silu=silu)


@pytest.mark.parametrize("place", [triton])
@pytest.mark.parametrize("shape", [(16, 256, 32, 32, 32), (4, 64, 256, 256, 32), (2, 128, 65, 63, 32)])
@pytest.mark.parametrize("dtype", [*DTYPES, torch.bfloat16])
def test_the_models_shapes(place: Place, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    assert_right(place, *make(shape[:4], dtype), groups=shape[4], eps=1e-6, silu=True)


@in_triton
@pytest.mark.parametrize("shape", [WHOLE[0], CUT[0]])
def test_a_large_mean_does_not_drown_the_variance(place: Place, shape: tuple[int, ...]) -> None:
    x, weight, bias, _ = place.put(*make(shape[:4], mean=1000.0))
    ours = group_norm(x, weight, bias, groups=shape[4], eps=1e-6, backend=place.backend)
    exact = reference.group_norm(x.double(), weight.double(), bias.double(), groups=shape[4], eps=1e-6)
    assert (ours - exact).abs().max() < 1e-3


@in_triton
@pytest.mark.parametrize("shape", [WHOLE[1], CUT[0]])
def test_the_same_bits_again_and_beside_other_images(place: Place, shape: tuple[int, ...]) -> None:
    x, weight, bias, grad = place.put(*make((2, *shape[1:4])))
    options: dict[str, Any] = {"groups": shape[4], "eps": 1e-6, "silu": True, "backend": place.backend}
    both, again = (grads(group_norm, x, weight, bias, grad, **options) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(both, again, strict=True))
    one = grads(group_norm, x[1:], weight, bias, grad[1:], **options)  # it begins inside the storage, too
    assert all(torch.equal(a, b[1:]) for a, b in zip(one[:2], both[:2], strict=True))


@in_triton
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_image_that_begins_between_two_vectors(place: Place, dtype: torch.dtype) -> None:
    """Whose address is no multiple of 16 bytes, though its channels fill whole vectors."""
    x, weight, bias, grad = place.put(*make((1, 16, 9, 9), dtype))
    shifted = torch.empty(x.numel() + 1, dtype=dtype, device=place.device)[1:]
    shifted = shifted.as_strided(x.shape, x.stride(), 1).copy_(x)
    assert shifted.is_contiguous(memory_format=torch.channels_last) and shifted.data_ptr() % 16
    options: dict[str, Any] = {"groups": 2, "eps": 1e-6, "silu": True, "backend": place.backend}
    ours = grads(group_norm, shifted, weight, bias, grad, **options)
    for mine, theirs in zip(ours, grads(group_norm, x, weight, bias, grad, **options), strict=True):
        torch.testing.assert_close(mine, theirs)


@in_triton
@pytest.mark.parametrize("shape", [(2, 16, 8, 8), (2, 6, 21, 20)])
def test_a_nan_stays_in_its_group(place: Place, shape: tuple[int, ...]) -> None:
    x, weight, bias, grad = place.put(*make(shape))
    x[1, 0, 3, 3] = float("nan")
    options: dict[str, Any] = {"groups": 2, "eps": 1e-6, "silu": True}
    ours = grads(group_norm, x, weight, bias, grad, backend=place.backend, **options)
    theirs = grads(reference.group_norm, x, weight, bias, grad, **options)
    for mine, truth in zip(ours, theirs, strict=True):
        assert torch.equal(mine.isnan(), truth.isnan())
        torch.testing.assert_close(mine, truth, rtol=1e-4, atol=1e-5, equal_nan=True)


@in_triton
def test_an_empty_batch_and_an_empty_image(place: Place) -> None:
    for shape in ((0, 8, 4, 4), (2, 8, 0, 4)):
        x, weight, bias, grad = place.put(*make(shape))
        y, grad_x, grad_weight, grad_bias = grads(
            group_norm, x, weight, bias, grad, groups=2, eps=1e-6, backend=place.backend
        )
        assert y.shape == grad_x.shape == shape
        assert not grad_weight.any() and not grad_bias.any()


@in_triton
def test_the_layout_is_kept_and_a_gradient_in_nchw_is_right(place: Place) -> None:
    x, weight, bias, grad = place.put(*make((2, 8, 5, 7)))
    options: dict[str, Any] = {"groups": 2, "eps": 1e-6}
    ours = grads(group_norm, x, weight, bias, grad.contiguous(), backend=place.backend, **options)
    assert ours[0].is_contiguous(memory_format=torch.channels_last)
    for mine, truth in zip(ours, grads(reference.group_norm, x, weight, bias, grad, **options), strict=True):
        torch.testing.assert_close(mine, truth, rtol=1e-4, atol=1e-5)


@in_triton
def test_parameters_in_half_precision_get_gradients_in_it(place: Place) -> None:
    x, weight, bias, grad = place.put(*make((1, 8, 5, 7), torch.float16))
    ours = grads(group_norm, x, weight.half(), bias.half(), grad, groups=2, eps=1e-6, silu=True, backend=place.backend)
    assert [tensor.dtype for tensor in ours] == [torch.float16] * 4


@in_triton
def test_other_layouts_and_dtypes_are_refused_with_a_reason(place: Place) -> None:
    x, weight, bias, _ = place.put(*make((1, 8, 4, 4)))
    options: dict[str, Any] = {"groups": 2, "eps": 1e-6, "backend": place.backend}
    with pytest.raises(BackendError, match="channels_last"):
        group_norm(x.contiguous(), weight, bias, **options)
    with pytest.raises(BackendError, match="float32, float16 and bfloat16"):
        group_norm(x.double(), weight, bias, **options)


@in_triton
@pytest.mark.parametrize("dtype", DTYPES)
def test_registration(place: Place, dtype: torch.dtype) -> None:
    x, weight, bias, _ = place.put(*make((2, 8, 5, 6), dtype))
    forward, backward = torch.ops.cbtalk.group_norm_triton.default, torch.ops.cbtalk.group_norm_backward_triton.default
    torch.library.opcheck(forward, (x, weight, bias, 2, 1e-6, True))
    y, mean, rstd = forward(x, weight, bias, 2, 1e-6, True)
    torch.library.opcheck(backward, (y, x, weight, bias, mean, rstd, 2, True))


@in_triton
def test_compiles_whole_and_exports(place: Place) -> None:
    class Norm(torch.nn.Module):
        def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return group_norm(x, weight, bias, groups=2, eps=1e-6, silu=True, backend=place.backend)

    x, weight, bias, grad = place.put(*make((2, 8, 5, 6)))
    compiled = torch.compile(Norm(), fullgraph=True, backend="aot_eager", dynamic=True)
    for mine, truth in zip(grads(compiled, x, weight, bias, grad), grads(Norm(), x, weight, bias, grad), strict=True):
        torch.testing.assert_close(mine, truth)
    exported = torch.export.export(Norm(), (x, weight, bias)).module()
    torch.testing.assert_close(exported(x, weight, bias), Norm()(x, weight, bias))


# Registers a thread: at 128 and 4 warps, four blocks share a multiprocessor and keep its memory busy.
@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90, 100])
def test_triton_compiles_for_gpus_without_spilling(capability: int) -> None:
    for one in compile_in_process("group_norm", capability):
        assert one.stack == 0 and not one.missing, one
        assert one.registers <= (200 if "bwd" in one.kernel else 96), one
