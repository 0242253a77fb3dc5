"""The places where the GPU kernels can be tested: on a GPU, or Triton's alone in its interpreter on the CPU."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

_GPU = torch.cuda.is_available()
needs_gpu = pytest.mark.skipif(not _GPU, reason="needs a CUDA GPU")


class Place(NamedTuple):
    """A backend and the device it runs on."""

    backend: str
    device: str

    def put(self, *tensors: Tensor) -> list[Tensor]:
        """The tensors on the device."""
        return [tensor.to(self.device) for tensor in tensors]


# The interpreter is thousands of times slower than a GPU: `make test` has one call of each op in it (test_interpreted).
interpreter = pytest.param(
    Place("triton", "cpu"),
    id="triton-interpreted",
    marks=[pytest.mark.slow, pytest.mark.skipif(_GPU, reason="the GPU runs the kernels")],
)
triton = pytest.param(Place("triton", "cuda"), id="triton", marks=needs_gpu)
cuda = pytest.param(Place("cuda", "cuda"), id="cuda", marks=needs_gpu)

# def test(place: Place): op(*place.put(x), backend=place.backend)
everywhere = pytest.mark.parametrize("place", [interpreter, triton, cuda])

# Of ops without CUDA C++.
in_triton = pytest.mark.parametrize("place", [interpreter, triton])

# For bfloat16: the interpreter's product of two such matrices is wrong (triton 3.6 and 3.9).
on_a_gpu = pytest.mark.parametrize("place", [triton, cuda])
