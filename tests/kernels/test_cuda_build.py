"""The machine code of the CUDA C++ kernels in the library that was built: registers, spills and instructions."""

import re
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from bench.gpu_code import LIBRARY, find_cuobjdump

ARCHITECTURES = ("sm_80", "sm_90a", "sm_100")

# Registers a thread, at most, on any architecture: what the launch bounds and the blocks a multiprocessor rest on.
BUDGET = {
    "warp_": 128,
    "attention_": 232,
    "nearest_code_search_kernel": 192,
    "nearest_code_": 96,
}

# Instructions that the design rests on, in at least one instance of the kernel on sm_90a.
DESIGN = {
    "warp_pixels_fwd_kernel": ("LDG.E.128", "STG.E.128"),
    "warp_pixels_bwd_kernel": ("LDG.E.128", "REDG.E.ADD.F32x4"),
    # "IfLi": float32, which is multiplied as three bfloat16.
    "attention_narrow_fwd_kernelIfLi": ("HMMA.1688.F32.BF16", "HMMA.16816.F32.BF16", "LDG.E.128", "LDS.128"),
    "attention_narrow_query_bwd_kernelIfLi": ("HMMA.1688.F32.BF16", "HMMA.16816.F32.BF16", "LDG.E.128", "LDS.128"),
    "attention_narrow_key_bwd_kernelIfLi": ("HMMA.1688.F32.BF16", "HMMA.16816.F32.BF16", "LDG.E.128", "LDS.128"),
    "attention_narrow_fwd_kernelI6__halfLi": ("HMMA.1688.F32 ", "MUFU.EX2"),
    "attention_wide_fwd_kernelIfLi": ("HMMA.16816.F32.BF16", "LDG.E.128", "MUFU.EX2"),
    "attention_wide_query_bwd_kernelIfLi": ("HMMA.16816.F32.BF16", "LDG.E.128", "MUFU.EX2"),
    "attention_wide_key_bwd_kernelIfLi": ("HMMA.16816.F32.BF16", "LDG.E.128", "MUFU.EX2"),
    "attention_wide_fwd_kernelI6__halfLi": ("HMMA.16816.F32 ", "LDG.E.128"),
    "nearest_code_winners_kernel": ("LDG.E.128", "DFMA"),
    "nearest_code_search_kernel": ("HMMA.1688.F32.TF32", "LDG.E.128", "STS.128"),
}


CUOBJDUMP = find_cuobjdump()


def reason() -> str | None:
    if not LIBRARY.exists():
        return "the CUDA C++ kernels were not built here: there is no nvcc"
    return None if CUOBJDUMP else "there is no cuobjdump on the PATH, and no Triton that brings one"


pytestmark = pytest.mark.skipif(reason() is not None, reason=str(reason()))


class Kernel(NamedTuple):
    name: str
    registers: int
    stack: int
    local: int


def cuobjdump(*arguments: str) -> str:
    command = [str(CUOBJDUMP), *arguments, str(LIBRARY)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def kernels(architecture: str) -> Iterator[Kernel]:
    printed = cuobjdump("-arch", architecture, "-res-usage")
    pattern = r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)"
    for name, registers, stack, local in re.findall(pattern, printed):
        yield Kernel(name, int(registers), int(stack), int(local))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_kernel_spills_or_takes_more_registers_than_planned(architecture: str) -> None:
    found = list(kernels(architecture))
    assert len(found) > 100
    assert [one for one in found if one.stack or one.local] == []
    for one in found:
        budget = next(most for part, most in BUDGET.items() if part in one.name)
        assert one.registers <= budget, one


def test_later_gpus_find_ptx() -> None:
    assert "sm_100.ptx" in cuobjdump("-lptx")


def test_the_machine_code_has_the_instructions_meant() -> None:
    parts = re.split(r"Function : (\S+)", cuobjdump("-arch", "sm_90a", "-sass"))
    code = dict(zip(parts[1::2], parts[2::2], strict=True))
    for kernel, instructions in DESIGN.items():
        instances = [text for name, text in code.items() if kernel in name]
        for instruction in instructions:
            assert any(instruction in text for text in instances), f"no {instruction} in {kernel}"
