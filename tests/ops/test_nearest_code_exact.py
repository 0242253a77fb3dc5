"""The nearest code in float64, whatever float32 can tell: far from the origin, at any scale, among ties."""

import pytest
import torch
from torch import Tensor

from cbtalk.ops import nearest_code
from tests.helpers.cpp import at_every_level, needs_cpp, use_level
from tests.ops.test_nearest_code_rows import DTYPES


def regret(z: Tensor, codebook: Tensor, indices: Tensor) -> Tensor:
    """The distance by which the codes are farther than the nearest, in float64 and relative to the nearest."""
    rows, codes = z.double(), codebook.double()
    distances = torch.stack([(row - codes).square().sum(1) for row in rows])
    nearest = distances.amin(1)
    return (distances.gather(1, indices[:, None])[:, 0] - nearest) / nearest.clamp(min=torch.finfo(torch.float64).tiny)


@needs_cpp
@at_every_level
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("offset", [0.0, 100.0, 1e3, 1e4, 1e6])
def test_exact_far_from_the_origin(offset: float, dtype: torch.dtype, level: str) -> None:
    for D in (1, 3, 32, 100):
        z, codebook = (torch.randn(200, D) + offset for _ in range(2))
        z, codebook = z.to(dtype), codebook.to(dtype)
        if not z.isfinite().all():
            pytest.skip(f"{offset} is infinite in {dtype}")
        with use_level(level):
            indices = nearest_code(z, codebook, backend="cpp").indices
        assert regret(z, codebook, indices).amax() <= D * torch.finfo(torch.float64).eps


@needs_cpp
@at_every_level
@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e-10, 1e10, 1e18, 1e19, 1e25, 1e37])
def test_exact_at_any_scale(scale: float, level: str) -> None:
    z, codebook = torch.randn(200, 16) * scale, torch.randn(100, 16) * scale
    with use_level(level):
        indices = nearest_code(z, codebook, backend="cpp").indices
    assert regret(z.double() / scale, codebook.double() / scale, indices).amax() <= 1e-14


@needs_cpp
@at_every_level
def test_exact_beside_codes_and_rows_far_out(level: str) -> None:
    z, codebook = torch.randn(200, 16), torch.randn(100, 16)
    codebook[3], codebook[40] = 1e30, -1e12
    codebook[5, 2], codebook[7] = torch.nan, torch.inf
    z[0], z[1], z[2] = 1e30, -1e20, 1e36
    with use_level(level):
        indices = nearest_code(z, codebook, backend="cpp").indices
    numbers = codebook.isfinite().all(1).nonzero()[:, 0]
    distances = torch.stack([(row - codebook[numbers].double()).square().sum(1) for row in z.double()])
    assert torch.equal(indices, numbers[distances.argmin(1)])


@needs_cpp
@at_every_level
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_smallest_index_where_different_codes_are_equally_near(offset: float, level: str) -> None:
    codebook = torch.cartesian_prod(*[torch.arange(-2.0, 3.0)] * 3)[torch.randperm(125)] + offset
    z = torch.randint(-4, 5, (300, 3)) / 2 + offset
    with use_level(level):
        indices = nearest_code(z, codebook, backend="cpp").indices
    distances = torch.stack([(row - codebook.double()).square().sum(1) for row in z.double()])
    assert torch.equal(indices, distances.argmin(1))


@needs_cpp
@at_every_level
def test_repeated_codes_change_nothing_but_who_may_win(level: str) -> None:
    codes = torch.randn(70, 9)
    codes[3, 4], codes[8], codes[20] = torch.nan, 0.0, 1e30
    z = torch.cat([torch.randn(200, 9), 0.01 * torch.randn(20, 9), codes[20:21]])
    repeated = torch.cat([codes, codes.flip(0), codes])
    repeated[70 + 61] = -0.0  # equal to the zeros of code 8
    with use_level(level):
        alone = nearest_code(z, codes, backend="cpp")
        assert torch.equal(nearest_code(z, repeated, backend="cpp").indices, alone.indices)
        zeros = nearest_code(z, torch.zeros(100, 9), backend="cpp").indices
    assert zeros.eq(0).all()
