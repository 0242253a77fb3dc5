from typing import Any

import pytest


@pytest.fixture
def memory() -> Any:
    """fsspec's file system of this process, emptied."""
    system = pytest.importorskip("fsspec", reason="fsspec is not installed").filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    return system
