"""The nearest code in float64, whatever float32 can tell: far from the origin, at any scale, among ties."""

import pytest
import torch
from torch import Tensor

from cbtalk import _native
from cbtalk.ops import nearest_code
from tests.ops.test_nearest_code import needs_cpp
from tests.ops.test_nearest_code_rows import DTYPES, LEVELS


def regret(z: Tensor, codebook: Tensor, indices: Tensor) -> Tensor:
    """How much farther the codes are than the nearest, in float64 and relative to the nearest."""
    rows, codes = z.double(), codebook.double()
    distances = torch.stack([(row - codes).square().sum(1) for row in rows])
    nearest = distances.amin(1)
    return (distances.gather(1, indices[:, None])[:, 0] - nearest) / nearest.clamp(min=torch.finfo(torch.float64).tiny)


@needs_cpp
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("offset", [0.0, 100.0, 1e3, 1e4, 1e6])
def test_exact_far_from_the_origin(offset: float, dtype: torch.dtype, level: str) -> None:
    for D in (1, 3, 32, 100):
        z, codebook = (torch.randn(200, D) + offset for _ in range(2))
        z, codebook = z.to(dtype), codebook.to(dtype)
        if not z.isfinite().all():
            pytest.skip(f"{offset} is infinite in {dtype}")
        with _native.use_cpu_level(level):
            indices = nearest_code(z, codebook, backend="cpp").indices
        assert regret(z, codebook, indices).amax() <= D * torch.finfo(torch.float64).eps


@needs_cpp
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e-10, 1e10, 1e18, 1e19, 1e25, 1e37])
def test_exact_at_any_scale(scale: float, level: str) -> None:
    z, codebook = torch.randn(200, 16) * scale, torch.randn(100, 16) * scale
    with _native.use_cpu_level(level):
        indices = nearest_code(z, codebook, backend="cpp").indices
    assert regret(z.double() / scale, codebook.double() / scale, indices).amax() <= 1e-14


@needs_cpp
@pytest.mark.parametrize("level", LEVELS)
def test_exact_beside_codes_and_rows_far_out(level: str) -> None:
    z, codebook = torch.randn(200, 16), torch.randn(100, 16)
    codebook[3], codebook[40] = 1e30, -1e12
    codebook[5, 2], codebook[7] = torch.nan, torch.inf
    z[0], z[1], z[2] = 1e30, -1e20, 1e36
    with _native.use_cpu_level(level):
        indices = nearest_code(z, codebook, backend="cpp").indices
    numbers = codebook.isfinite().all(1).nonzero()[:, 0]
    distances = torch.stack([(row - codebook[numbers].double()).square().sum(1) for row in z.double()])
    assert torch.equal(indices, numbers[distances.argmin(1)])


@needs_cpp
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_smallest_index_where_different_codes_are_equally_near(offset: float, level: str) -> None:
    codebook = torch.cartesian_prod(*[torch.arange(-2.0, 3.0)] * 3)[torch.randperm(125)] + offset
    z = torch.randint(-4, 5, (300, 3)) / 2 + offset
    with _native.use_cpu_level(level):
        indices = nearest_code(z, codebook, backend="cpp").indices
    distances = torch.stack([(row - codebook.double()).square().sum(1) for row in z.double()])
    assert torch.equal(indices, distances.argmin(1))
