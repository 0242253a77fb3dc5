"""The CUDA C++ kernels and their bindings, compiled for the CPU, under the tests of the kernels: no GPU is needed."""

import json
import subprocess

import pytest

from cbtalk.ops.examples import IN_CUDA
from tests.helpers.commands import ROOT, run_pytest
from tests.kernels.emulation import build

pytestmark = [pytest.mark.slow, pytest.mark.skipif(build.why_not() is not None, reason=str(build.why_not()))]

BASES = list(dict.fromkeys(example.base for example in IN_CUDA))

# The shapes of the model take minutes; the graphs are CUDA's.
SELECTION = "interpreted and not compile and not model and not graph"

FAULTS = {
    "x and y swapped": ("flow_warp", "cuda/flow_warp_backward.cu", "2 * pixel] = grad.x", "2 * pixel] = grad.y"),
    "a border that is zeros": (
        "flow_warp",
        "include/cbtalk/cuda/flow_warp_pixel.h",
        "return padded_position<Padding::border>(",
        "return padded_position<Padding::zeros>(",
    ),
    "a dropped last pixel": (
        "flow_warp",
        "include/cbtalk/geometry.h",
        "(low >= 0) & (low <= size - 2)",
        "(low >= 0) & (low < size - 2)",
    ),
    "<= for <": ("nearest_code", "include/cbtalk/cuda/nearest_code_doubt.h", "score < best;", "score <= best;"),
    "3xTF32 without a second search": (
        "nearest_code",
        "cuda/nearest_code_winners.cuh",
        "return !(second - best > gap);",
        "return false;",
    ),
    "a bound of doubt that is too narrow": (
        "nearest_code",
        "include/cbtalk/cuda/nearest_code_doubt.h",
        "return 0x1p-23f *",
        "return 0x1p-26f *",
    ),
    "the offset of a head left out": (
        "nearest_code",
        "cuda/nearest_code_elements.cuh",
        "head * matrices.head_stride",
        "0",
    ),
    "a mask of rows left out": (
        "nearest_code",
        "cuda/nearest_code_winners.cuh",
        "(p.ignored == nullptr || !p.ignored[out])",
        "true",
    ),
    "rows of the first head summed for all": (
        "nearest_code_sums",
        "cuda/nearest_code_sums.cu",
        "sum_of_places(p, head,",
        "sum_of_places(p, 0,",
    ),
    "a missing barrier": (
        "codebook_attention",
        "cuda/attention_wide.cuh",
        "    __syncthreads();\n    for (int i = threadIdx.x; i < padded",
        "    for (int i = threadIdx.x; i < padded",
    ),
    "a dropped tail of keys": (
        "codebook_attention",
        "cuda/codebook_attention.cu",
        "for (int k = 0; k < count; k += kKeyGroup<D>)",
        "for (int k = 0; k + kKeyGroup<D> <= count; k += kKeyGroup<D>)",
    ),
    "a part of float32 left out of narrow heads": (
        "codebook_attention",
        "cuda/attention_narrow.cuh",
        "add(2, other, 2, sum);",
        "",
    ),
    "a part of float32 left out": (
        "codebook_attention",
        "cuda/attention_wide.cuh",
        "for (int order = kParts<T> - 1; order >= 0; --order)",
        "for (int order = kParts<T> - 2; order >= 0; --order)",
    ),
}


def run_tests(
    op: str, plant: tuple[str, ...] | None = None, selection: str = SELECTION
) -> "subprocess.CompletedProcess[str]":
    # Memory that nobody has written holds 3e38, or a NaN of float16.
    environment = {"TRITON_INTERPRET": "1", "MALLOC_PERTURB_": "128"}
    if plant is not None:
        environment["CBTALK_PLANT"] = json.dumps(plant)
    files = sorted(ROOT.glob(f"tests/kernels/test_{op}*.py"))
    return run_pytest(files, "-k", selection, plugin="tests.kernels.emulated", **environment)


@pytest.mark.parametrize("op", BASES)
def test_the_kernels_pass_their_tests(op: str) -> None:
    result = run_tests(op)
    assert result.returncode == 0, result.stdout + result.stderr


def test_several_queries_to_a_thread_or_warp() -> None:
    """The attention kernels for many queries, of which fewer take less time here."""
    many = "kAttentionManyQueries = 1"
    plant = ("include/cbtalk/cuda/codebook_attention_params.h", f"{many} << 16", many)
    selection = f"{SELECTION} and (self_attention or slices or one_query)"
    result = run_tests("codebook_attention", plant, selection)
    assert result.returncode == 0, result.stdout + result.stderr


def test_copies_of_codes_need_no_second_search() -> None:
    """With a second search that is wrong, rows between copies are right, and those between other codes are not."""
    plant = ("cuda/nearest_code_winners.cuh", "return nearest.index;", "return -2;")
    result = run_tests("nearest_code", plant, f"{SELECTION} and no_second_search")
    assert result.returncode == 0, result.stdout + result.stderr
    result = run_tests("nearest_code", plant, f"{SELECTION} and cannot_decide")
    assert result.returncode == 1 and "1 failed" in result.stdout, result.stdout + result.stderr


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_value_is_found(fault: str) -> None:
    op, *plant = FAULTS[fault]
    result = run_tests(op, plant=tuple(plant))
    # A failure, and no error of pytest's own or of the compiler.
    assert result.returncode == 1 and "1 failed" in result.stdout, result.stdout + result.stderr
