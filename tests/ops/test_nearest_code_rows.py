"""nearest_code and vector_quantize of several codebooks, ignored rows, sums of rows, and dtypes."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cbtalk.ops import QuantizedSums, nearest_code, vector_quantize
from tests.helpers.checks import assert_error_budget
from tests.helpers.cpp import at_every_level, needs_cpp, use_level
from tests.ops.test_nearest_code import backends, lay_out, trained

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def values_and_gradients(
    z: Tensor, codebook: Tensor, ignored: Tensor | None, backend: str, weight: Tensor
) -> tuple[Tensor, ...]:
    """All outputs of both ops and the gradients of a value made of them; weight has the shape of z."""
    leaves = z.detach().clone().requires_grad_(), codebook.detach().clone().requires_grad_()
    found = vector_quantize(*leaves, ignored=ignored, sums=True, backend=backend)
    indices, distances = nearest_code(*leaves, ignored=ignored, backend=backend)
    assert torch.equal(indices, found.indices)
    value = (found.codes * weight).sum() + 3 * found.loss + (distances * weight[..., 0]).sum()
    return *(x.detach() for x in found), distances.detach(), *torch.autograd.grad(value, leaves)


@backends
@pytest.mark.parametrize("masked", ["no mask", "one mask", "a mask for each"])
def test_several_codebooks_are_a_loop(masked: str, backend: str) -> None:
    H, N, K, D = 3, 130, 40, 9
    z, codebook, weight = torch.randn(H, N, D), torch.randn(H, K, D), torch.randn(H, N, D)
    shape = {"no mask": None, "one mask": (N,), "a mask for each": (H, N)}[masked]
    ignored = None if shape is None else torch.rand(shape) < 0.3
    found = vector_quantize(z, codebook, ignored=ignored, sums=True, backend=backend)
    distances = nearest_code(z, codebook, ignored=ignored, backend=backend).distances
    squares = torch.zeros(())
    for h in range(H):
        mask = ignored[h] if ignored is not None and ignored.dim() == 2 else ignored
        alone = vector_quantize(z[h], codebook[h], ignored=mask, sums=True, backend=backend)
        for name in ("codes", "indices", "counts", "sums"):
            assert torch.equal(getattr(found, name)[h], getattr(alone, name)), name
        assert torch.equal(distances[h], nearest_code(z[h], codebook[h], ignored=mask, backend=backend).distances)
        squares += alone.loss * alone.counts.sum()
    torch.testing.assert_close(found.loss, squares / found.counts.sum())
    if backend == "cpp":
        plain = values_and_gradients(z, codebook, ignored, "reference", weight)
        exact = values_and_gradients(z.double(), codebook.double(), ignored, "reference", weight.double())
        for ours, theirs, truth in zip(
            values_and_gradients(z, codebook, ignored, "cpp", weight), plain, exact, strict=True
        ):
            if ours.is_floating_point():
                assert_error_budget(ours, theirs, truth)
            else:
                assert torch.equal(ours, truth)


@backends
@pytest.mark.parametrize("filling", [torch.nan, torch.inf, 1e30])
def test_ignored_rows_do_not_count(filling: float, backend: str) -> None:
    z, codebook = trained(150, 20, 6)
    ignored = torch.rand(150) < 0.4
    z[ignored] = filling
    z.requires_grad_()
    codebook.requires_grad_()
    found = vector_quantize(z, codebook, ignored=ignored, sums=True, backend=backend)
    distances = nearest_code(z, codebook, ignored=ignored, backend=backend).distances
    assert found.indices[ignored].eq(-1).all()
    assert found.codes[ignored].eq(0).all() and distances[ignored].eq(0).all()
    weight = torch.randn(150, 6)
    value = (found.codes * weight).sum() + found.loss + distances.sum()
    ours = torch.autograd.grad(value, (z, codebook), create_graph=True)
    assert ours[0][ignored].eq(0).all()

    kept = z.detach()[~ignored].requires_grad_()
    alone = vector_quantize(kept, codebook, sums=True, backend=backend)
    distances_alone = nearest_code(kept, codebook, backend=backend).distances
    value = (alone.codes * weight[~ignored]).sum() + alone.loss + distances_alone.sum()
    expected = torch.autograd.grad(value, (kept, codebook), create_graph=True)
    torch.testing.assert_close(found.loss, alone.loss)
    torch.testing.assert_close(ours[0][~ignored], expected[0])
    torch.testing.assert_close(ours[1], expected[1])
    assert torch.equal(found.counts, alone.counts) and torch.equal(found.sums, alone.sums)
    second = torch.autograd.grad(torch.stack([x.square().sum() for x in ours]).sum(), (z, codebook))
    second_alone = torch.autograd.grad(torch.stack([x.square().sum() for x in expected]).sum(), (kept, codebook))
    assert second[0][ignored].eq(0).all()
    torch.testing.assert_close(second[0][~ignored], second_alone[0])
    torch.testing.assert_close(second[1], second_alone[1])


@backends
def test_all_rows_ignored(backend: str) -> None:
    z, codebook = torch.randn(10, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    ignored = torch.ones(10, dtype=torch.bool)
    found = vector_quantize(z, codebook, ignored=ignored, sums=True, backend=backend)
    assert found.loss.isnan() and found.counts.eq(0).all() and found.sums.eq(0).all()
    for gradient in torch.autograd.grad(found.loss + found.codes.sum(), (z, codebook)):
        assert gradient.eq(0).all()


def test_masks_that_do_not_fit() -> None:
    z, codebook = torch.randn(2, 10, 4), torch.randn(2, 5, 4)
    for wrong in (torch.zeros(10), torch.zeros(9, dtype=torch.bool), torch.zeros(3, 10, dtype=torch.bool)):
        with pytest.raises(ValueError, match="ignored must be bool"):
            nearest_code(z, codebook, ignored=wrong)
        with pytest.raises(ValueError, match="ignored must be bool"):
            vector_quantize(z, codebook, ignored=wrong)
    for wrong_codes in (codebook[0], codebook[:1], torch.randn(3, 5, 4)):
        with pytest.raises(ValueError, match="codebook"):
            nearest_code(z, wrong_codes)


@backends
def test_sums_of_the_rows_of_each_code(backend: str) -> None:
    z, codebook = trained(3000, 12, 33)
    z.requires_grad_()
    found = vector_quantize(z, codebook, sums=True, backend=backend)
    assert isinstance(found, QuantizedSums) and not found.sums.requires_grad
    rows = z.detach()
    plain = torch.zeros(12, 33).index_add(0, found.indices, rows)
    exact = torch.zeros(12, 33, dtype=torch.float64).index_add(0, found.indices, rows.double())
    assert_error_budget(found.sums, plain, exact)
    codes, loss, indices, counts = vector_quantize(z, codebook, backend=backend)
    assert torch.equal(codes, found.codes) and torch.equal(indices, found.indices) and loss == found.loss
    assert torch.equal(counts, found.counts)


@needs_cpp
@pytest.mark.parametrize("z_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("codebook_dtype", DTYPES, ids=str)
@at_every_level
def test_each_argument_in_its_own_dtype(z_dtype: torch.dtype, codebook_dtype: torch.dtype, level: str) -> None:
    z, codebook = trained(150, 30, 21)
    z, codebook, weight = z.to(z_dtype), codebook.to(codebook_dtype), torch.randn(150, 21)
    with use_level(level):
        ours = values_and_gradients(z, codebook, None, "cpp", weight)
    plain = values_and_gradients(z, codebook, None, "reference", weight)
    exact = values_and_gradients(z.double(), codebook.double(), None, "reference", weight.double())
    for mine, theirs, truth in zip(ours, plain, exact, strict=True):
        if mine.is_floating_point():
            assert_error_budget(mine, theirs, truth)
        else:
            assert torch.equal(mine, truth)


@needs_cpp
@at_every_level
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_number_of_16_bits_is_read_and_written(dtype: torch.dtype, level: str) -> None:
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    finite = every[every.isfinite()][:, None]
    one = torch.zeros(1, 1)
    with use_level(level):
        distances = nearest_code(finite.float(), one, backend="cpp").distances
        assert torch.equal(nearest_code(finite, one, backend="cpp").distances, distances)
        row = every[None].contiguous()
        codes = vector_quantize(torch.zeros(1, 2**16, dtype=dtype), row.float(), backend="cpp").codes
    torch.testing.assert_close(codes, row, rtol=0, atol=0, equal_nan=True)


@needs_cpp
@at_every_level
@settings(deadline=None, max_examples=20)
@given(
    H=st.integers(0, 3),
    N=st.integers(0, 110),
    K=st.integers(1, 70),
    D=st.integers(1, 40),
    layout=st.sampled_from(["contiguous", "transposed", "sliced", "offset"]),
    dtypes=st.sampled_from(list(itertools.product(DTYPES, DTYPES))),
    masked=st.booleans(),
)
def test_any_heads_shape_layout_and_dtype(
    H: int, N: int, K: int, D: int, layout: str, dtypes: tuple[torch.dtype, ...], level: str, masked: bool
) -> None:
    heads = (H,) if H else ()
    z, codebook = (
        lay_out(torch.randn(*heads, rows, D).to(dtype), layout) for rows, dtype in zip((N, K), dtypes, strict=True)
    )
    ignored = torch.rand(*heads, N) < 0.3 if masked else None
    with use_level(level):
        found = vector_quantize(z, codebook, ignored=ignored, sums=True, backend="cpp")
    exact = vector_quantize(z.double(), codebook.double(), ignored=ignored, sums=True)
    assert torch.equal(found.indices, exact.indices) and torch.equal(found.counts, exact.counts)
    assert torch.equal(found.codes, exact.codes.to(z.dtype))
    torch.testing.assert_close(found.sums.double(), exact.sums, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.loss.double(), exact.loss, rtol=1e-5, atol=0, equal_nan=True)


@needs_cpp
def test_sums_have_the_same_bits_with_any_number_of_threads() -> None:
    z, codebook = torch.randn(2, 3000, 17), torch.randn(2, 90, 17)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found = vector_quantize(z, codebook, ignored=torch.arange(3000) % 7 == 3, sums=True, backend="cpp")
            results.append((*found,))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        for first, other in zip(results[0], result, strict=True):
            assert torch.equal(first, other)
