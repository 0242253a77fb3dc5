"""Compiles the Triton kernels of one op for GPUs that need not be there, and says what the compiler made of them.

`python -m tests.kernels.aot flow_warp 90`, in a process of its own: the test process may have the kernels interpreted.
The builds are those of tests/kernels/<op>_builds.py.
"""

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.kernels import planted


@dataclass(frozen=True)
class Build:
    """One kernel of cbtalk.kernels.<op> as its launcher would have it compiled."""

    kernel: str
    signature: Mapping[str, str]  # argument -> "*fp32", "i32", ...; constexprs are left out
    constexprs: Mapping[str, Any]
    options: Mapping[str, int] = field(default_factory=dict)  # num_warps, num_stages
    instructions: tuple[str, ...] = ()  # what its PTX must contain, as regular expressions
    forbidden: tuple[str, ...] = ()  # what its PTX must not contain


@dataclass(frozen=True)
class Compiled:
    """The outcome of a build; stack is where spilled registers go."""

    kernel: str
    constexprs: Mapping[str, Any]
    registers: int
    stack: int  # bytes a thread
    shared: int  # bytes a block
    missing: tuple[str, ...]  # the instructions that its PTX lacks, and "not ..." for those that it must not have


def compile_in_process(op: str, capability: int, triton: Path | None = None) -> list[Compiled]:
    """Run this file as a program without Triton's interpreter; `triton` is a folder with another release of it."""
    command = [sys.executable, "-m", "tests.kernels.aot", op, str(capability)]
    root = Path(__file__).parents[2]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    if triton is not None:
        environment["PYTHONPATH"] = str(triton)
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-4000:]
    return [Compiled(**{**record, "missing": tuple(record["missing"])}) for record in json.loads(result.stdout)]


def compile_build(op: str, build: Build, capability: int) -> Compiled:
    """Compile one build for compute capability `capability` (90 is sm_90)."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    function = getattr(importlib.import_module(f"cbtalk.kernels.{op}"), build.kernel)
    signature = {
        name: "constexpr" if name in build.constexprs else build.signature[name] for name in function.arg_names
    }
    constants = {(function.arg_names.index(name),): value for name, value in build.constexprs.items()}
    # A launcher tells the compiler that tensors begin at multiples of 16 bytes, as whole tensors of torch do.
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(signature.values()) if kind.startswith("*")}
    source = ASTSource(function, signature, constants, aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=dict(build.options))
    ptx = compiled.asm["ptx"]
    missing = [pattern for pattern in build.instructions if re.search(pattern, ptx) is None]
    missing += [f"not {pattern}" for pattern in build.forbidden if re.search(pattern, ptx) is not None]
    registers, stack = resources(compiled.asm["cubin"])
    return Compiled(build.kernel, build.constexprs, registers, stack, compiled.metadata.shared, tuple(missing))


def resources(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes of stack of a thread, as cuobjdump reads them from the machine code."""
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", printed)
    assert found, printed
    return int(found[1]), int(found[2])


def main() -> None:
    """Print the compiled builds as JSON."""
    if "CBTALK_PLANT" in os.environ:
        planted.pytest_configure()
    op, capability = sys.argv[1], int(sys.argv[2])
    builds: list[Build] = importlib.import_module(f"tests.kernels.{op}_builds").builds(capability)
    print(json.dumps([asdict(compile_build(op, build, capability)) for build in builds], default=str))


if __name__ == "__main__":
    main()
