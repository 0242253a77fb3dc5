"""Parts of a grid that only `make test-slow` runs: @pytest.mark.parametrize("room", [40, *slow(0, 100, 160)])."""

from typing import Any

import pytest
from _pytest.mark import ParameterSet


def slow(*values: Any) -> list[ParameterSet]:
    """These values as slow ones; a tuple is one value for each of several arguments."""
    rows = (value if isinstance(value, tuple) else (value,) for value in values)
    return [pytest.param(*row, marks=pytest.mark.slow) for row in rows]
