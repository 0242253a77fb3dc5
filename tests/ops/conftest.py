from collections.abc import Iterator

import pytest
import torch

from tests.helpers.cpp import LEVELS, needs_cpp, use_level


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    """Parallel loops of the kernels, also where the test processes have one thread each."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=[pytest.param(level, marks=needs_cpp) for level in LEVELS])
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction level that this processor has, in use during the test."""
    with use_level(request.param):
        yield request.param
