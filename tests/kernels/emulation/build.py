"""Compiles the CUDA C++ kernels and their torch bindings for the CPU: the sources as they are, but for what g++ lacks.

Objects and libraries are kept in build/emulation under a hash of all that they are made of.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent
FOLDER = ROOT / "build" / "emulation"
TORCH = Path(torch.__file__).parent

# As in CMakeLists.txt, no flag changes a value. -w: pragmas of nvcc.
COMMON = ["-std=c++20", "-O1", "-w", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"]
# Faults that a GPU would answer with an error, and those that it would not notice.
SANITIZE = ["-fsanitize=alignment,bounds", "-fno-sanitize-recover=all"]
KERNEL = [*COMMON, *SANITIZE, "-march=native", "-fno-math-errno", "-fno-trapping-math", "-include", "cuda_on_cpu.h"]
BINDING = [*COMMON, "-DTORCH_TARGET_VERSION=0x020b000000000000"]

# kernel<<<
_LAUNCH = re.compile(r"(\w+(?:<[^<>;]*(?:<[^<>]*>)?[^<>;]*>)?)\s*<<<(.*?)>>>\s*\(", re.DOTALL)
_ASM = {
    re.compile(r'asm\("mma\.sync\.\S*\.tf32\..*?\)\);', re.DOTALL): "cuda_on_cpu::multiply_tf32(sum, a, b);",
    re.compile(r'asm\("mma\.sync\.\S*f16\..*?\)\);', re.DOTALL): "cuda_on_cpu::multiply_halves<T>(sum, a, b);",
    re.compile(r'asm volatile\("st\.global\.v4\.b32.*?\);', re.DOTALL): "*reinterpret_cast<uint4*>(target) = raw;",
}
_INCLUDE = re.compile(r'^#include "(.+)"$', re.MULTILINE)
_IMPL = re.compile(r'm\.impl\("(\w+)"')


def toolkit() -> Path | None:
    """The headers of the CUDA toolkit."""
    homes = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda"]
    if nvcc := shutil.which("nvcc"):
        homes.insert(1, str(Path(nvcc).resolve().parents[1]))
    folders = [Path(home) / "include" for home in homes if home]
    return next((folder for folder in folders if (folder / "cuda_fp16.h").exists()), None)


def why_not() -> str | None:
    """The reason why kernels cannot be compiled for the CPU here, or None."""
    if shutil.which("g++") is None:
        return "there is no g++"
    return None if toolkit() else "there are no headers of the CUDA toolkit: put nvcc on the PATH or set CUDA_HOME"


def ops() -> list[str]:
    """The names of the ops of cbtalk that the bindings implement."""
    return [
        name for file in sorted((ROOT / "csrc/torch").glob("*_cuda.cpp")) for name in _IMPL.findall(file.read_text())
    ]


def rewritten(plant: tuple[str, str, str] | None) -> dict[str, str]:
    """All sources, by their path in csrc. `plant` replaces a text of one file: (path, before, after)."""
    csrc = ROOT / "csrc"
    files = [*csrc.glob("cuda/*.cu*"), *csrc.glob("torch/*_cuda.cpp"), *csrc.glob("torch/*.h"), *csrc.glob("cpu/*.h")]
    sources = {str(file.relative_to(csrc)): file.read_text() for file in [*files, *csrc.glob("include/**/*.h")]}
    if plant is not None:
        path, before, after = plant
        assert before in sources[path], f"{path} has no {before!r}"
        sources[path] = sources[path].replace(before, after)
    for path, text in sources.items():
        if path.startswith("cuda/"):
            sources[path] = _kernel_source(path, text)
        elif path.endswith("_cuda.cpp"):
            text = text.replace(
                "STABLE_TORCH_LIBRARY_IMPL(cbtalk, CUDA, m)", "STABLE_TORCH_LIBRARY_IMPL(cbtalk, CPU, m)"
            )
            sources[path] = _IMPL.sub(r'm.impl("\1_emulated"', text)
    sources["torch/cuda.h"] = (HERE / "without_device.h").read_text()
    sources["include/cuda_on_cpu.h"] = (HERE / "cuda_on_cpu.h").read_text()
    return sources


def _kernel_source(path: str, text: str) -> str:
    text = _LAUNCH.sub(r"cuda_on_cpu::launch(\1, \2)(", text).replace("__CUDA_ARCH__", "900")
    for assembly, instead in _ASM.items():
        text = assembly.sub(instead, text)
    assert "<<<" not in text, f"{path} has a launch that is not rewritten"
    assert not re.search(r'\basm\b[^"]*"[^"]', text), f"{path} has assembly that is not rewritten"
    return text


def build(plant: tuple[str, str, str] | None = None) -> Path:
    """The library; registers each op of ops() as cbtalk::<op>_emulated for CPU tensors."""
    sources = rewritten(plant)
    units = [path for path in sources if path.endswith((".cu", ".cpp"))]
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        for path, text in sources.items():
            file = Path(folder, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        objects = list(pool.map(lambda unit: _compile(unit, sources, Path(folder)), units))
    library = FOLDER / f"{_hash(*(file.name for file in objects))}.so"
    if not library.exists():
        _run("g++", "-shared", *SANITIZE, *map(str, objects), f"-L{TORCH / 'lib'}", "-ltorch_cpu", target=library)
    return library


def _compile(unit: str, sources: Mapping[str, str], folder: Path) -> Path:
    flags = KERNEL if unit.endswith(".cu") else BINDING
    seen: dict[str, str] = {}
    queue = [unit, *(["include/cuda_on_cpu.h"] if unit.endswith(".cu") else [])]
    while queue:
        path = queue.pop()
        seen[path] = sources[path]
        for name in _INCLUDE.findall(sources[path]):
            places = [str(Path(path).parent / name), f"include/{name}", f"cpu/{name}"]
            queue += [place for place in places if place in sources and place not in seen][:1]
    target = FOLDER / f"{_hash(torch.__version__, *flags, *(part for item in sorted(seen.items()) for part in item))}.o"
    if not target.exists():
        # Not what lies in the repository's own folders: a planted fault may be in a header.
        includes = [f"-I{folder / 'include'}", f"-I{folder / 'cpu'}", f"-isystem{toolkit()}"]
        torch_include = [] if unit.endswith(".cu") else [f"-isystem{TORCH / 'include'}"]
        _run("g++", *flags, *includes, *torch_include, "-x", "c++", "-c", str(folder / unit), target=target)
    return target


def _run(*command: str, target: Path) -> None:
    # Whoever builds the same at the same time finds a whole file or none.
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        file = Path(folder, target.name)
        result = subprocess.run([*command, "-o", str(file)], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr[-4000:]
        file.replace(target)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


if __name__ == "__main__":
    print(build())
