"""The prediction of bench.gpu_predict: every case of the bench is in it, and it says what its machine code says."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from bench import gpu_predict
from bench.case import Case, Setting
from bench.cases import cases
from bench.gpu import BATCH, DTYPES
from bench.gpu_code import LIBRARY, Code, find_cuobjdump
from bench.gpu_predict import LAUNCHES, Kernels
from bench.gpu_ways import Way
from bench.launches.launch import Launch, Loop, dtype_name
from cbtalk import _triton
from cbtalk.ops.examples import EXAMPLES, ON_GPU
from tests.helpers.commands import ROOT

OPS = [example.name for example in ON_GPU]
IN_CUDA = [name for name in OPS if name in LAUNCHES]
CASES = [
    pytest.param(case, id=f"{case.name}, {dtype}")
    for dtype in DTYPES
    for case in cases(Setting("cuda", dtype, BATCH), IN_CUDA, peers=[])
]
# A loop of 8 instructions, 4 products of TF32 and an exponential among them, behind 2 and ahead of 1.
TEXT = [
    "MOV R1, c[0x0][0x28]",
    "MOV R2, c[0x0][0x30]",
    *["HMMA.1688.F32.TF32 R4, R4, R8, R4"] * 4,
    "MUFU.EX2 R4, R4",
    "FADD R4, R4, R5",
    "ISETP.GE.AND P0, PT, R2, R3, PT",
    "@P0 BRA 0x20",
    "EXIT",
]


def launches(case: Case) -> list[Launch]:
    with FakeTensorMode():
        return LAUNCHES[case.op](case.direction, case.make_inputs(torch.Generator()))


@pytest.mark.parametrize("case", CASES)
def test_every_case_of_the_bench_has_launches_that_make_its_items(case: Case) -> None:
    found = launches(case)
    assert any("fwd" in one.kernel or "search" in one.kernel for one in found)
    assert any("_backward" in one.kernel for one in found) == (case.direction == "bwd")
    for one in found:
        assert one.bytes > 0 and (not one.hot or min(one.items, one.warps) > 0)
    assert case.work is not None
    if case.op in ("flow_warp", "codebook_attention", "self_attention"):
        assert sum(one.bytes for one in found) >= 0.99 * case.work.bytes  # no kernel moves less than the floor


def test_each_op_of_cuda_is_predicted() -> None:
    assert sorted(LAUNCHES) == sorted(example.name for example in EXAMPLES if "cuda" in example.backends)


def kernels(monkeypatch: pytest.MonkeyPatch) -> Kernels:
    code = Code("loop", 32, 0, len(TEXT), [], [(16 * place, what) for place, what in enumerate(TEXT)])
    monkeypatch.setattr(gpu_predict, "read", lambda library, architecture: [code])
    return Kernels(Path("a library"))


@pytest.mark.parametrize(
    ("bytes_", "set_by", "seconds"),
    [
        (0.0, "products", 1000 * 10 * 4 * 2048 / (0.62 * 494e12)),
        (4.3e12, "memory", 1.0),
    ],
)
def test_a_kernel_takes_the_longest_of_its_times(
    bytes_: float, set_by: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = Launch(
        "loop", bytes_, "score", 1000 * 10 * 128, 1000, (Loop({"HMMA": 4}, 10),), products="tf32"
    )  # 1000 warps go round 10 times for 128 scores
    found = kernels(monkeypatch).predict(launch)
    assert found.instructions == 32 * 8 / 128
    assert found.time.by == set_by
    assert math.isclose(found.time.seconds, seconds)


def test_instructions_around_a_loop_take_time_and_make_no_item(monkeypatch: pytest.MonkeyPatch) -> None:
    once = Launch("loop", 0.0, "score", 128, 1, (Loop({"MUFU.EX2": 1}, 1),), products="bfloat16")
    monkeypatch.setattr(gpu_predict, "_OPERATIONS", {})
    monkeypatch.setattr(gpu_predict, "_FUNCTIONS", math.inf)
    found = kernels(monkeypatch).predict(once)
    assert found.instructions == 2.0
    assert (found.time.by, found.time.seconds) == ("issue", (2 + 8 + 1) / (132 * 4 * 1.755e9))


def test_products_of_four_warps_are_shared_and_take_the_rate_of_their_type() -> None:
    for kind, rate in (("TF32", 430e12), ("BF16", 860e12)):
        way = Way(2, (f"HGMMA.64x32x8.F32.{kind} R24, R88, gdesc[UR12], RZ, !UPT", "FADD R4, R4, R5"))
        assert math.isclose(gpu_predict._products(way, "tf32"), 2 * 64 * 32 * 8 / 4 / rate)


@pytest.mark.slow
@pytest.mark.skipif(not LIBRARY.exists() or find_cuobjdump() is None, reason="no CUDA C++ library, or no cuobjdump")
@pytest.mark.skipif(_triton._reason is not None, reason=str(_triton._reason))
def test_every_case_has_a_row_with_each_backend_and_no_share_is_above_the_floor() -> None:
    """In a process of its own, for the tests have Triton interpreted."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "bench.gpu_predict"]
    printed = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout
    rows = {tuple(cells[:2]): cells[2:] for line in printed.splitlines() if len(cells := line[2:-2].split(" | ")) == 8}
    for dtype in DTYPES:
        for case in cases(Setting("cuda", dtype, BATCH), OPS, peers=[]):
            if "rough" in case.shape or "from the origin" in case.shape:
                continue
            _, _, cuda, _, triton, *_ = rows[case.name, dtype_name(dtype)]
            assert all(0 < int(share.rstrip("%")) <= 100 for share in (cuda, triton) if share), case.name
            assert triton and bool(cuda) == (case.op in LAUNCHES), case.name
