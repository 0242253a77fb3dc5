"""The C++ kernels in tests: skipped where they were not built, and run at each instruction level."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cbtalk import _native

LEVELS = ("baseline", "avx2", "avx512")

needs_cpp = pytest.mark.skipif(_native.why_not_cpp() is not None, reason=str(_native.why_not_cpp()))
at_every_level = pytest.mark.parametrize("level", LEVELS)


@contextmanager
def use_level(name: str) -> Iterator[None]:
    """Runs the C++ kernels at a level; the test is skipped on a processor that lacks it."""
    with _native.use_cpu_level(name) as in_use:
        if in_use != name:
            pytest.skip(f"this processor has no {name}")
        yield
