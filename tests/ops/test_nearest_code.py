import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cbtalk import _native
from cbtalk.errors import BackendError
from cbtalk.ops import nearest_code, vector_quantize
from cbtalk.reference import nearest_code as reference
from tests.helpers.checks import assert_error_budget, assert_nearest
from tests.helpers.cpp import at_every_level, needs_cpp, use_level

backends = pytest.mark.parametrize("backend", ["reference", pytest.param("cpp", marks=needs_cpp)])

# N, K, D: one row and one code; sizes that are no multiple of any tile; several row blocks; the model's own.
SIZES = [(1, 1, 1), (5, 3, 7), (97, 33, 16), (300, 100, 33), (200, 1024, 32), (100, 1024, 256)]


def trained(N: int, K: int, D: int) -> tuple[Tensor, Tensor]:
    codebook = torch.randn(K, D)
    return codebook[torch.randint(K, (N,))] + 0.1 * torch.randn(N, D), codebook


def untrained(N: int, K: int, D: int) -> tuple[Tensor, Tensor]:
    """Codes as they are initialised, far smaller than the rows: here the expanded distance picks wrong codes."""
    return torch.randn(N, D), torch.empty(K, D).uniform_(-1 / K, 1 / K)


def leaves_of(z: Tensor, codebook: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return z.to(dtype, copy=True).requires_grad_(), codebook.to(dtype, copy=True).requires_grad_()


@backends
@pytest.mark.parametrize("make", [trained, untrained])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_nearest_in_float64(
    make: Callable[[int, int, int], tuple[Tensor, Tensor]], size: tuple[int, int, int], backend: str
) -> None:
    z, codebook = make(*size)
    indices, distances = nearest_code(z, codebook, backend=backend)
    assert indices.dtype == torch.int64 and indices.shape == distances.shape == (size[0],)
    assert_nearest(indices, z, codebook)
    chosen = codebook[indices]
    assert_error_budget(distances, (z - chosen).square().sum(1), (z.double() - chosen.double()).square().sum(1))


@needs_cpp
@at_every_level
@settings(deadline=None, max_examples=20)
@given(
    N=st.integers(0, 120),
    K=st.integers(1, 80),
    D=st.integers(1, 40),
    layout=st.sampled_from(["contiguous", "transposed", "sliced", "offset"]),
)
def test_any_shape_and_layout(N: int, K: int, D: int, layout: str, level: str) -> None:
    z, codebook = lay_out(torch.randn(N, D), layout), lay_out(torch.randn(K, D), layout)
    with use_level(level):
        found = vector_quantize(z, codebook, backend="cpp")
    if N:
        assert_nearest(found.indices, z, codebook)
    assert torch.equal(found.codes, codebook[found.indices])
    assert torch.equal(found.counts, torch.bincount(found.indices, minlength=K))


def lay_out(tensor: Tensor, layout: str) -> Tensor:
    """The same numbers at other strides; "offset" begins where no vector is aligned."""
    if layout == "transposed":
        return tensor.mT.contiguous().mT
    if layout == "sliced":
        return torch.nn.functional.pad(tensor, (0, 3), value=torch.nan)[..., : tensor.shape[-1]]
    if layout == "offset":
        return torch.cat([torch.full((1,), torch.nan), tensor.flatten()])[1:].view(tensor.shape)
    return tensor


@backends
def test_codes_of_expanded_rows_and_of_a_prefix(backend: str) -> None:
    row, codebook = torch.randn(1, 24), torch.randn(64, 24)
    alone = nearest_code(row, codebook[:48], backend=backend)
    many = nearest_code(row.expand(50, 24), codebook[:48], backend=backend)
    assert torch.equal(many.indices, alone.indices.expand(50))


@backends
def test_smallest_index_of_equally_near_codes(backend: str) -> None:
    codes = torch.randn(45, 6)
    for copies in (torch.cat([codes, codes, codes]), codes.repeat_interleave(3, 0)):
        indices = nearest_code(codes, copies, backend=backend).indices
        first = (copies == codes[:, None]).all(2).int().argmax(1)
        assert torch.equal(indices, first)
    assert nearest_code(torch.randn(9, 6), torch.zeros(100, 6), backend=backend).indices.eq(0).all()


@backends
def test_rows_and_codes_that_are_not_finite(backend: str) -> None:
    z, codebook = torch.randn(30, 8), torch.randn(50, 8)
    z[7, 3] = torch.nan
    z[9] = torch.inf
    codebook[5] = torch.nan
    found = vector_quantize(z, codebook, backend=backend)
    distances = nearest_code(z, codebook, backend=backend).distances
    assert found.indices[7] == 0 and distances[7].isnan() and not distances[8].isnan()
    assert distances[9].isinf()
    assert not found.indices.eq(5).any()
    assert torch.equal(found.codes, codebook[found.indices])
    others = torch.arange(30)[~torch.isin(torch.arange(30), torch.tensor([7, 9]))]
    assert torch.equal(found.indices[others], nearest_code(z[others], codebook, backend=backend).indices)


@backends
def test_no_rows(backend: str) -> None:
    z, codebook = torch.randn(0, 8, requires_grad=True), torch.randn(5, 8, requires_grad=True)
    found = vector_quantize(z, codebook, backend=backend)
    assert found.codes.shape == (0, 8) and found.indices.shape == (0,) and found.loss.isnan()
    assert torch.equal(found.counts, torch.zeros(5, dtype=torch.int64))
    nearest_code(z, codebook, backend=backend).distances.sum().backward()
    assert codebook.grad is not None and codebook.grad.eq(0).all()


@backends
def test_rows_do_not_depend_on_one_another(backend: str) -> None:
    z, codebook = untrained(250, 96, 32)
    whole = nearest_code(z, codebook, backend=backend)
    for part in (slice(0, 1), slice(3, 100), slice(101, 250)):
        assert torch.equal(nearest_code(z[part], codebook, backend=backend).indices, whole.indices[part])


@needs_cpp
def test_same_bits_with_any_number_of_threads() -> None:
    z, codebook = untrained(2000, 300, 17)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            leaves = leaves_of(z, codebook, torch.float32)
            found = vector_quantize(*leaves, backend="cpp")
            results.append((*found, *torch.autograd.grad(found.loss + found.codes.square().sum(), leaves)))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        for first, other in zip(results[0], result, strict=True):
            assert torch.equal(first, other)


def test_autocast_does_not_round_the_search() -> None:
    z, codebook = untrained(400, 256, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        indices = nearest_code(z, codebook, backend="reference").indices
    assert_nearest(indices, z, codebook)


def test_bfloat16_rows_are_searched_in_float32() -> None:
    z, codebook = trained(100, 50, 16)
    z = z.bfloat16().requires_grad_()
    found = vector_quantize(z, codebook)
    assert_nearest(found.indices, z.detach().float(), codebook)
    assert found.codes.dtype == torch.bfloat16 and found.loss.dtype == torch.float32
    found.codes.sum().backward()
    assert z.grad is not None and z.grad.dtype == torch.bfloat16


def test_arguments_that_do_not_fit() -> None:
    z, codebook = torch.randn(4, 3), torch.randn(5, 3)
    for wrong in ((z[0], codebook), (z, codebook[:, :2]), (z, codebook[:0]), (z.long(), codebook.long())):
        with pytest.raises(ValueError, match="codebook"):
            nearest_code(*wrong)
        with pytest.raises(ValueError, match="codebook"):
            vector_quantize(*wrong)
    with pytest.raises(BackendError, match=r"float32|compiled library"):
        nearest_code(z.double(), codebook.double(), backend="cpp")


def step(z: Tensor, codebook: Tensor, backend: str) -> Tensor:
    codes, loss, _, counts = vector_quantize(z, codebook, backend=backend)
    indices, distances = nearest_code(z, codebook, backend=backend)
    return codes.square().sum() + loss + distances.mean() + (counts.sum() + indices.sum()).float()


@needs_cpp
@pytest.mark.parametrize("level", ["baseline", "avx2"])
def test_environment_lowers_the_instruction_level(level: str) -> None:
    if _native.cpu_level() == "baseline" and level == "avx2":
        pytest.skip("this processor has no AVX2")
    program = (
        "import torch; from cbtalk import _native; from cbtalk.ops import nearest_code; torch.manual_seed(0);"
        "z = torch.randn(300, 20); i = nearest_code(z, z, backend='cpp').indices;"
        "assert torch.equal(i, torch.arange(300)); print(_native.cpu_level())"
    )
    environment = {**os.environ, "CBTALK_CPU_ISA": level}
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", program], env=environment, cwd=root, capture_output=True, text=True)
    assert run.stdout.strip() == level, run.stderr


def test_reference_agrees_with_all_distances() -> None:
    z, codebook = trained(50, 20, 6)
    found = reference.nearest_code(z.double(), codebook.double())
    smallest, where = (z[:, None] - codebook).double().square().sum(2).min(1)
    assert torch.equal(found.indices, where)
    torch.testing.assert_close(found.distances, smallest, rtol=1e-6, atol=1e-6)
