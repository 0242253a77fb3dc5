"""Tests of the tests: a fault planted in a kernel turns the tests of its op red."""

import json
import subprocess

import pytest

from cbtalk import _triton
from tests.helpers.commands import ROOT, run_pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(_triton._reason is not None, reason=str(_triton._reason))]

FAULTS = {
    "x and y swapped": ("flow_warp", "return flow_x, flow_y", "return flow_y, flow_x"),
    "align_corners off by one": (
        "flow_warp",
        "scale = 0.5 * (size - 1).to(tl.float32)",
        "scale = 0.5 * size.to(tl.float32)",
    ),
    "a border that is zeros": ("flow_warp", "tl.minimum(tl.maximum(position, 0.0), last)", "position"),
    "a dropped last row": ("flow_warp", "(y < height) & (x < width)", "(y < height - 1) & (x < width)"),
    "<= for <": ("nearest_code", "code_mask & (score < best)", "code_mask & (score <= best)"),
    "a dropped tail of codes": (
        "nearest_code",
        "for first in range(0, K, BLOCK_K):",
        "for first in range(0, tl.maximum(K // BLOCK_K, 1) * BLOCK_K, BLOCK_K):",
    ),
    "no second search": ("nearest_code", "tl.where(decided, index, -1)", "index"),
    "the offset of a head left out": ("nearest_code", "    z += head * z_stride_h\n", ""),
    "a mask of rows left out": (
        "nearest_code",
        "kept &= tl.load(ignored + outputs, mask=inside, other=1) == 0",
        "pass",
    ),
    "rows of the first head summed for all": (
        "nearest_code_sums",
        "    head = key // K\n    z += head * z_stride_h\n",
        "    head = key // K\n",
    ),
    "a dropped tail of keys": (
        "codebook_attention",
        "for first in range(0, keys, BLOCK_K):",
        "for first in range(0, tl.maximum(keys // BLOCK_K, 1) * BLOCK_K, BLOCK_K):",
    ),
    "a dropped last pixel": (
        "group_norm",
        "inside = (p < pixels) & (c < C)[None, :]",
        "inside = (p < pixels - 1) & (c < C)[None, :]",
    ),
    "pixels that are not there counted": (
        "group_norm",
        "counts = tl.minimum(counts, TILES)",
        "counts = 0 * counts + TILES",
    ),
    "a padding of keys that counts": ("codebook_attention", "kept = key < keys", "kept = key <= keys"),
}

TF32 = {
    "nearest_code": ('"PRECISION": "tf32x3"', '"PRECISION": "tf32"'),
    "codebook_attention": ('FLOAT32_PRECISION = "ieee"', 'FLOAT32_PRECISION = "tf32"'),
}


def run_tests(op: str, selection: str, *plant: str) -> "subprocess.CompletedProcess[str]":
    """The tests of one op, up to the first failure, with a fault in its kernels."""
    files = sorted(ROOT.glob(f"tests/kernels/test_{op}*.py"))
    return run_pytest(files, "-k", selection, plugin="tests.kernels.planted", CBTALK_PLANT=json.dumps([op, *plant]))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_value_is_found(fault: str) -> None:
    op, before, after = FAULTS[fault]
    result = run_tests(op, "not compile", before, after)
    assert result.returncode == 1, result.stdout + result.stderr  # failures, and no error of pytest's own


def test_copies_of_codes_need_no_second_search() -> None:
    """With a second search that is wrong, rows between copies are right, and those between other codes are not."""
    plant = "return tl.min(tl.where(best ==", "return K + tl.min(tl.where(best =="
    result = run_tests("nearest_code", "no_second_search", *plant)
    assert result.returncode == 0, result.stdout + result.stderr
    result = run_tests("nearest_code", "cannot_decide and 32", *plant)
    assert result.returncode == 1, result.stdout + result.stderr


def test_the_division_of_a_gpu_is_exact_enough_for_halves() -> None:
    """It errs by 1.2e-7 of its value, here by twice that; an error of a hundredth is found."""
    for error, code in (("2.4e-7", 0), ("0.01", 1)):
        result = run_tests("group_norm", "not compile", "else x / y", f"else (1 + {error}) * x / y")
        assert result.returncode == code, result.stdout + result.stderr


@pytest.mark.parametrize("op", TF32)
def test_tf32_where_float32_is_meant_is_found(op: str) -> None:
    """The interpreter multiplies in float32 whatever is asked for: the compiled code tells."""
    result = run_tests(op, "compile and 80", *TF32[op])
    assert result.returncode == 1, result.stdout + result.stderr
