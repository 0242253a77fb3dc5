"""Sums of rows by code, in the forward pass and in the codebook's gradient, and what the backward pass takes."""

import pytest
import torch
from torch import Tensor

from cbtalk.ops import nearest_code, vector_quantize
from cbtalk.reference import nearest_code as reference
from tests.helpers.checks import assert_error_budget
from tests.kernels.aot import compile_in_process
from tests.kernels.where import Place, everywhere, on_a_gpu
from tests.ops.test_nearest_code import leaves_of, trained


def raw(name: str, place: Place) -> torch._ops.OpOverload:
    op: torch._ops.OpOverload = getattr(torch.ops.cbtalk, name + "_triton" * (place.backend == "triton")).default
    return op


@everywhere
def test_a_row_that_is_not_finite_spoils_its_own_code_alone(place: Place) -> None:
    z, codebook = place.put(*trained(200, 3, 9))
    indices = nearest_code(z, codebook).indices
    row = int((indices == 1).nonzero()[0])
    leaves = leaves_of(z, codebook, torch.float32)
    grad = torch.ones(200, device=z.device)
    grad[row] = torch.nan
    distances = nearest_code(*leaves, backend=place.backend).distances
    grad_codebook = torch.autograd.grad(distances, leaves, grad)[1]
    assert torch.equal(grad_codebook.isnan().any(1).cpu(), torch.tensor([False, True, False]))
    z[row] = torch.nan
    sums = vector_quantize(z, codebook, sums=True, backend=place.backend).sums
    assert torch.equal(sums.isnan().any(1).cpu(), torch.tensor([True, False, False]))  # a row of NaN takes code 0


@everywhere
def test_one_code_takes_all_rows(place: Place) -> None:
    z, codebook = place.put(torch.randn(333, 5), torch.full((4, 5), 50.0))
    codebook[2] = 0
    check_sums(z, codebook, place)
    check_sums(z[:192], codebook, place)  # whole chunks alone
    check_sums(z[:65], codebook[1:], place)
    # The rows of one code in one head are followed by those of another in the next.
    check_sums(torch.stack([z, z]), torch.stack([codebook, codebook.flip(0)]), place)


@on_a_gpu
def test_more_codes_than_keys_of_two_bytes_count(place: Place) -> None:
    z, codebook = place.put(torch.randn(2, 3, 2), torch.randn(2, 2**14 + 1, 2))
    z[1] = codebook[1, -3:]
    check_sums(z, codebook, place)


def check_sums(z: Tensor, codebook: Tensor, place: Place) -> None:
    results = []
    for name, dtype in ((place.backend, torch.float32), ("reference", torch.float32), ("reference", torch.float64)):
        leaves = leaves_of(z, codebook, dtype)
        found = vector_quantize(*leaves, sums=True, backend=name)
        results.append((found.sums, torch.autograd.grad(found.loss, leaves)[1]))
    for ours, plain, exact in zip(*results, strict=True):
        assert_error_budget(ours, plain, exact)


@everywhere
def test_equal_calls_give_equal_bits(place: Place) -> None:
    z, codebook = place.put(torch.stack([trained(300, 4, 9)[0]] * 2), torch.randn(2, 4, 9))
    results = []
    for _ in range(2):
        leaves = leaves_of(z, codebook, torch.float32)
        found = vector_quantize(*leaves, sums=True, backend=place.backend)
        results.append((*found, *torch.autograd.grad(found.loss, leaves)))
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)


@everywhere
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_the_chosen_rows_come_out_where_they_are_asked_for(dtype: torch.dtype, place: Place) -> None:
    z, codebook = place.put(*trained(40, 7, 5))
    codebook = codebook.to(dtype)
    ignored = torch.arange(40, device=z.device) % 5 == 2
    for name, more in (("nearest_code", ()), ("vector_quantize", (0.25, 1.0, False))):
        *_, rows = raw(name, place)(z, codebook, ignored, *more, True)
        indices = nearest_code(z, codebook, ignored=ignored, backend=place.backend).indices
        assert rows.dtype == dtype and torch.equal(rows, codebook[indices].masked_fill(ignored[:, None], 0.0))
        assert raw(name, place)(z, codebook, ignored, *more, False)[-1].shape == (0,)
    assert raw("vector_quantize", place)(z, codebook, None, 0.25, 1.0, False, False)[4].shape == (0,)


@everywhere
@pytest.mark.parametrize("heads", [False, True])
def test_backward_op(heads: bool, place: Place) -> None:
    """Against its formula: weights of any strides, rows that are no codes, and what is not needed is not there."""
    z, rows, grad_codes = place.put(*torch.randn(3, 2, 130, 11))
    (indices,) = place.put(torch.randint(-1, 4, (2, 130)))
    (weight,) = place.put(torch.randn(130, 2, 3)[..., 1].T)
    if not heads:
        z, rows, grad_codes, indices, weight = (x[1] for x in (z, rows, grad_codes, indices, weight))
    spoiled = z.masked_fill((indices < 0)[..., None], torch.nan)
    backward = raw("nearest_code_backward", place)
    for one in (weight, torch.tensor(0.5, device=z.device)):
        grad_z, grad_codebook = backward(grad_codes, one, spoiled, rows, indices, 4, 2.0, 3.0, True, True)
        exact = formula(grad_codes.double(), one.double(), z.double(), rows.double(), indices)
        plain = formula(grad_codes, one, z, rows, indices)
        assert_error_budget(grad_z, plain[0], exact[0])
        assert_error_budget(grad_codebook, plain[1], exact[1])
        alone = backward(grad_codes, one, spoiled, rows, indices, 4, 2.0, 3.0, True, False)
        assert torch.equal(alone[0], grad_z) and alone[1].shape == (0,)
        alone = backward(grad_codes, one, spoiled, rows, indices, 4, 2.0, 3.0, False, True)
        assert alone[0].shape == (0,) and torch.equal(alone[1], grad_codebook)


def formula(grad_codes: Tensor, weight: Tensor, z: Tensor, rows: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Both gradients, of scales 2 and 3 and of 4 codes."""
    pull = (weight[..., None] * (z - rows)).masked_fill((indices < 0)[..., None], 0.0)
    carried = grad_codes.masked_fill((indices < 0)[..., None], 0.0)
    return carried + 2 * pull, -3 * reference.sum_by_code(pull, indices, 4)


@everywhere
def test_the_codebook_may_change_before_the_backward_pass(place: Place) -> None:
    z, codebook = place.put(*trained(60, 8, 6))
    results = []
    for change in (False, True):
        leaves = leaves_of(z, codebook, torch.float32)
        found = vector_quantize(*leaves, backend=place.backend)
        value = found.loss + nearest_code(*leaves, backend=place.backend).distances.sum()
        if change:
            leaves[1].data.zero_()
        results.append(torch.autograd.grad(value, leaves))
    for plain, other in zip(*results, strict=True):
        assert torch.equal(plain, other)


@everywhere
def test_second_derivatives(place: Place) -> None:
    z, codebook = place.put(*trained(30, 6, 4))
    ignored = torch.arange(30, device=z.device) % 7 == 3
    vectors = torch.randn_like(z), torch.randn_like(codebook)
    results = []
    for name, dtype in ((place.backend, torch.float32), ("reference", torch.float32), ("reference", torch.float64)):
        leaves = leaves_of(z, codebook, dtype)
        found = vector_quantize(*leaves, ignored=ignored, backend=name)
        value = found.loss.square() + nearest_code(*leaves, ignored=ignored, backend=name).distances.square().sum()
        first = torch.autograd.grad(value, leaves, create_graph=True)
        results.append(torch.autograd.grad(first, leaves, [vector.to(dtype) for vector in vectors]))
    for ours, plain, exact in zip(*results, strict=True):
        assert_error_budget(ours, plain, exact)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90, 100])
def test_compiles_without_spills(capability: int) -> None:
    for one in compile_in_process("nearest_code_sums", capability):
        assert one.stack == 0 and not one.missing, one
