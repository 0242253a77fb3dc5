import pytest
import torch
from torch.autograd import forward_ad

from cbtalk.errors import BackendError
from cbtalk.ops.backends import choose, use_backend

X = torch.zeros(1)


def no_float16(x: torch.Tensor) -> str | None:
    return "float16 is not among its dtypes"


def runs(x: torch.Tensor) -> str | None:
    return None


def never_asked(x: torch.Tensor) -> str | None:
    raise AssertionError("asked although another backend runs")


WHY_NOT = {"cpp": no_float16, "triton": runs}


def test_auto_takes_the_first_without_a_reason_and_asks_no_further() -> None:
    assert choose("auto", WHY_NOT, X) == "reference"
    assert choose("auto", {"cpp": runs, "triton": never_asked}, X) == "cpp"
    on_gpu = torch.zeros(1, device="meta")
    assert choose("auto", {"cpp": never_asked, "cuda": no_float16, "triton": runs}, on_gpu) == "triton"


def test_a_backend_asked_for_by_name_runs_or_raises_its_reason() -> None:
    assert choose("reference", WHY_NOT, X) == "reference"
    assert choose("triton", WHY_NOT, X) == "triton"
    with pytest.raises(BackendError, match="float16 is not among its dtypes"):
        choose("cpp", WHY_NOT, X)


def test_an_unknown_backend_is_answered_with_the_known_ones() -> None:
    with pytest.raises(BackendError, match="known: auto, cpp, reference, triton"):
        choose("cuda", WHY_NOT, X)


def test_a_forced_backend_replaces_auto_only_and_ends_with_its_block() -> None:
    with use_backend("triton"):
        assert choose("auto", WHY_NOT, X) == "triton"
        assert choose("reference", WHY_NOT, X) == "reference"
        with pytest.raises(RuntimeError), use_backend("reference"):
            raise RuntimeError
        assert choose("auto", WHY_NOT, X) == "triton"
    assert choose("auto", WHY_NOT, X) == "reference"


def test_a_forced_backend_that_cannot_run_raises_its_reason() -> None:
    with use_backend("cpp"), pytest.raises(BackendError, match="float16"):
        choose("auto", WHY_NOT, X)


def test_forward_mode_goes_to_the_reference_and_is_the_reason_against_kernels() -> None:
    with forward_ad.dual_level():
        assert choose("auto", {"cpp": runs}, X) == "reference"
        with pytest.raises(BackendError, match="no forward-mode derivative"):
            choose("cpp", {"cpp": runs}, X)
