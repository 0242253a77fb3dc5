"""Tests of the tests: a fault planted in the contract around a kernel turns the tests of the ops red."""

import json

import pytest

from cbtalk import _native
from tests.helpers.commands import run_pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(_native.why_not_cpp() is not None, reason=str(_native.why_not_cpp())),
]

# The tests that must see a fault, its module, and pairs of a text to replace and what by.
FAULTS: dict[str, tuple[str, str, *tuple[tuple[str, str], ...]]] = {
    "a derivative that is not registered": (
        "test_derivatives.py",
        "cbtalk.ops.kernel_op",
        ("torch.library.register_autograd(qualified, self._backward, setup_context=save)", "pass"),
    ),
    "a codebook that is saved instead of the chosen rows": (
        "test_nearest_code_gradients.py",
        "cbtalk.ops._nearest_code_kernels",
        ("    ctx.codes = codebook.shape[-2]\n", "    ctx.codes, ctx.codebook = codebook.shape[-2], codebook\n"),
        ("return z, indices, rows\n", "return z, indices, reference.chosen_rows(ctx.codebook, indices)\n"),
    ),
    "a layout predicate that asks for adjacent channels alone": (
        "test_group_norm.py",
        "cbtalk.ops.layout",
        ("return x.is_contiguous(memory_format=torch.channels_last)", "return x.stride(1) == 1"),
    ),
    "a kernel that runs although forward mode is asked for": (
        "test_derivatives.py",
        "cbtalk.ops.backends",
        ("forward_ad._current_level >= 0", "False"),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_contract_is_found(fault: str) -> None:
    tests, *plant = FAULTS[fault]
    result = run_pytest([f"tests/ops/{tests}"], plugin="tests.ops.planted", CBTALK_PLANT=json.dumps(plant))
    assert result.returncode == 1, result.stdout + result.stderr  # failures, and no error of pytest's own
