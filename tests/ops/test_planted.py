"""Tests of the tests: a fault planted in the contract around a kernel turns the tests of the ops red."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cbtalk import _native

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(_native.why_not_cpp() is not None, reason=str(_native.why_not_cpp()))

# The module, the text of it to replace, what by, and the tests that must see it.
FAULTS = {
    "a derivative that is not registered": (
        "cbtalk.ops.kernel_op",
        "torch.library.register_autograd(qualified, self._backward, setup_context=save)",
        "pass",
        "test_derivatives.py",
    ),
    "a layout predicate that asks for adjacent channels alone": (
        "cbtalk.ops.layout",
        "return x.is_contiguous(memory_format=torch.channels_last)",
        "return x.stride(1) == 1",
        "test_group_norm.py",
    ),
    "a kernel that runs although forward mode is asked for": (
        "cbtalk.ops.backends",
        "forward_ad._current_level >= 0",
        "False",
        "test_derivatives.py",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_contract_is_found(fault: str) -> None:
    *plant, tests = FAULTS[fault]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "tests.ops.planted", "-p", "no:cacheprovider"]
    result = subprocess.run(
        [*command, f"tests/ops/{tests}"],
        cwd=ROOT,
        env={**os.environ, "CBTALK_PLANT": json.dumps(plant)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1, result.stdout + result.stderr  # failures, and no error of pytest's own
