"""The machine code of the CUDA C++ kernels: registers, spills and instructions, without a GPU.

python -m bench.gpu_code [--library FILE] [--arch sm_90a] [--kernel warp_pixels]

A table in Markdown, a kernel a row. The counts are of the code as it stands: a loop counts once, whichever of its paths
is taken, and what a compiler unrolled counts as often as it did.
"""

import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

LIBRARY = Path(__file__).resolve().parents[1] / "cbtalk" / "_lib" / "libcbtalk_cuda.so"

_TYPES = {"f": "float32", "6__half": "float16", "13__nv_bfloat16": "bfloat16"}
_INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+((?:@!?U?P\d+ +)?[A-Z][^;]*);")
_JUMP = re.compile(r"\bBRA\b[^;]*?\b0x([0-9a-f]+)")
# Marks of loops: of global memory read, written and added to, products on tensor cores, exponentials.
_KINDS = {"LDG": "loads", "STG": "stores", "RED": "additions", "HMMA": "products", "MUFU.EX2": "exponentials"}


class Loop(NamedTuple):
    """The instructions between a jump backwards and its target."""

    instructions: int
    kinds: dict[str, int]

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.kinds.items())
        return f"{self.instructions} ({kinds})" if kinds else str(self.instructions)


class Code(NamedTuple):
    """A kernel's machine code; stack is where spilled registers go."""

    name: str
    registers: int
    stack: int  # bytes a thread
    instructions: int
    loops: list[Loop]  # those that touch global memory or multiply, in order
    text: Sequence[tuple[int, str]]  # addresses and instructions


def find_cuobjdump() -> str | None:
    """On the PATH, or the one that Triton brings."""
    if found := shutil.which("cuobjdump"):
        return found
    if importlib.util.find_spec("triton") is None:
        return None
    from triton import knobs

    return str(knobs.nvidia.cuobjdump.path)


def read(library: Path, architecture: str) -> Iterator[Code]:
    """The kernels of a library, or of a cubin of that architecture."""
    told = _cuobjdump(library, architecture, "-res-usage", "-sass")
    resources = {name: (int(r), int(s)) for name, r, s in re.findall(r"Function (\S+):\s+REG:(\d+) STACK:(\d+)", told)}
    parts = re.split(r"Function : (\S+)", told)
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        found = [(int(at, 16), what) for at, what in _INSTRUCTION.findall(text)]
        used = sum(not what.startswith("NOP") for _, what in found)
        yield Code(readable(name), *resources[name], used, list(loops(found)), found)


def loops(code: Sequence[tuple[int, str]]) -> Iterator[Loop]:
    """The loops of (address, instruction) pairs, in the order of their ends."""
    for at, what in code:
        target = _JUMP.search(what)
        if target is None or int(target[1], 16) >= at:
            continue
        body = [inner for place, inner in code if int(target[1], 16) <= place <= at]
        counts = {kind: sum(mark in inner for inner in body) for mark, kind in _KINDS.items()}
        if any(counts.values()):
            yield Loop(len(body), {kind: count for kind, count in counts.items() if count})


def readable(mangled: str) -> str:
    """A kernel's file, name and template arguments: "flow_warp: warp_pixels_fwd_kernel<float32, 4>"."""
    found = re.search(r"_N__[0-9a-f]+_\d+_(\w+?)_cu_[0-9a-f]+.*?\d([a-z]\w*?_kernel)(?:I(.*?)EE)?", mangled)
    if found is None:
        return mangled
    file, name, template = found.groups()
    arguments = re.findall(r"L[a-z](\d+)E?|(f|6__half|13__nv_bfloat16)", template or "")
    names = [number or _TYPES[kind] for number, kind in arguments]
    return f"{file}: {name}<{', '.join(names)}>" if names else f"{file}: {name}"


def _cuobjdump(library: Path, architecture: str, *options: str) -> str:
    tool = find_cuobjdump()
    if tool is None:
        sys.exit("bench.gpu_code needs cuobjdump: from CUDA, on the PATH, or the one that triton brings")
    chosen = () if library.suffix == ".cubin" else ("-arch", architecture)
    command = [tool, *chosen, *options, str(library)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, default=LIBRARY, help="a built library, or a .cubin of nvcc")
    parser.add_argument("--arch", default="sm_90a", help="(sm_90a)")
    parser.add_argument("--kernel", default="", help="only kernels whose names contain this")
    arguments = parser.parse_args()
    if not arguments.library.exists():
        sys.exit(f"{arguments.library}: no such file; build it on a machine with nvcc, or give --library")
    print("| kernel | registers | stack | instructions | loops |\n| --- | --- | --- | --- | --- |")
    for code in sorted(read(arguments.library, arguments.arch)):
        if arguments.kernel in code.name:
            told = "; ".join(str(loop) for loop in code.loops)
            print(f"| {code.name} | {code.registers} | {code.stack} | {code.instructions} | {told} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
