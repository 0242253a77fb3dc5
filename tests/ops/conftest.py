from collections.abc import Iterator

import pytest

from cbtalk import _native


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction level that this processor has."""
    if _native.why_not_cpp() is not None:
        pytest.skip(str(_native.why_not_cpp()))
    with _native.use_cpu_level(request.param) as in_use:
        if in_use != request.param:
            pytest.skip(f"this processor has no {request.param}")
        yield in_use
