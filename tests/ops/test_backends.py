import pytest

from cbtalk.errors import BackendError
from cbtalk.ops.backends import choose, use_backend

CANDIDATES = [("cpp", "float16 is not among its dtypes"), ("triton", None), ("reference", None)]


def test_auto_takes_the_first_without_a_reason() -> None:
    assert choose("auto", CANDIDATES) == "triton"


def test_a_backend_asked_for_by_name_runs_or_raises_its_reason() -> None:
    assert choose("reference", CANDIDATES) == "reference"
    with pytest.raises(BackendError, match="float16 is not among its dtypes"):
        choose("cpp", CANDIDATES)


def test_an_unknown_backend_is_answered_with_the_known_ones() -> None:
    with pytest.raises(BackendError, match="known: auto, cpp, triton, reference"):
        choose("cuda", CANDIDATES)


def test_a_forced_backend_replaces_auto_only_and_ends_with_its_block() -> None:
    with use_backend("reference"):
        assert choose("auto", CANDIDATES) == "reference"
        assert choose("triton", CANDIDATES) == "triton"
        with pytest.raises(RuntimeError), use_backend("triton"):
            raise RuntimeError
        assert choose("auto", CANDIDATES) == "reference"
    assert choose("auto", CANDIDATES) == "triton"


def test_a_forced_backend_that_cannot_run_raises_its_reason() -> None:
    with use_backend("cpp"), pytest.raises(BackendError, match="float16"):
        choose("auto", CANDIDATES)
