import json
import os
import shlex
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from cbtalk import _build_info, _native

LEVELS = ["baseline", "avx2", "avx512"]
ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "cmake"
OBJECTS = BUILD / "CMakeFiles"


def test_the_library_is_built_and_loads() -> None:
    assert _native.why_not_cpp() is None


def test_the_level_in_use_is_the_processors_best_unless_lowered() -> None:
    if "CBTALK_CPU_ISA" in os.environ:
        pytest.skip("CBTALK_CPU_ISA lowers the level of this process")
    assert _native.cpu_level() == _build_info.processor_level


@pytest.mark.parametrize("name", LEVELS)
def test_a_level_is_capped_by_the_processor_and_given_back(name: str) -> None:
    before = _native.cpu_level()
    best = LEVELS.index(_build_info.processor_level)
    with _native.use_cpu_level(name) as level:
        assert level == _native.cpu_level() == LEVELS[min(LEVELS.index(name), best)]
    assert _native.cpu_level() == before


def test_an_unknown_level_is_refused() -> None:
    before = _native.cpu_level()
    with pytest.raises(ValueError, match="neon"), _native.use_cpu_level("neon"):
        pass
    assert _native.cpu_level() == before


def test_the_environment_lowers_the_level_of_a_process() -> None:
    result = subprocess.run(
        [sys.executable, "-c", "from cbtalk import _native; print(_native.cpu_level())"],
        env={**os.environ, "CBTALK_CPU_ISA": "baseline"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert result.stdout.strip() == "baseline"


def test_a_missing_or_damaged_library_has_a_reason(tmp_path: Path) -> None:
    library, reason = _native._load(tmp_path / "libcbtalk_cpu.so")
    assert library is None and reason is not None and "make build" in reason
    (tmp_path / "libcbtalk_cpu.so").write_bytes(b"not a library")
    library, reason = _native._load(tmp_path / "libcbtalk_cpu.so")
    assert library is None and reason is not None and "cannot be loaded" in reason


def test_the_environment_names_the_folder_of_the_libraries(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", "from cbtalk import _native; print(_native.why_not_cpp())"],
        env={**os.environ, "CBTALK_LIBRARIES": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert f"libcbtalk_cpu.so is not in {tmp_path}" in result.stdout


LIKE_A_USER = """
import torch, cbtalk.ops
z, codebook = torch.rand(9, 4), torch.rand(5, 4)
cbtalk.ops.nearest_code(z, codebook, backend="reference")
print("asked by name", flush=True)
import sys; sys.stderr.write("|")
for _ in range(2):
    cbtalk.ops.nearest_code(z, codebook)
    cbtalk.ops.flow_warp(torch.rand(1, 2, 4, 4), torch.zeros(1, 4, 4, 2))
torch.compile(cbtalk.ops.nearest_code, backend="eager", fullgraph=True)(z, codebook)
"""


def test_ops_left_to_the_reference_for_want_of_the_library_say_so_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIKE_A_USER],
        env={**os.environ, "CBTALK_LIBRARIES": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    by_name, by_itself = done.stderr.split("|")
    assert by_name == "" and by_itself.count("RuntimeWarning") == 1
    assert "references in plain torch" in by_itself and "make build" in by_itself and "another folder" in by_itself


def test_a_missing_cuda_library_has_a_reason(tmp_path: Path) -> None:
    library, reason = _native._load_cuda(tmp_path / "libcbtalk_cuda.so")
    assert library is None and reason is not None and "nvcc" in reason


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch is built with CUDA")
def test_the_cuda_library_is_left_alone_on_a_torch_without_cuda(tmp_path: Path) -> None:
    (tmp_path / "libcbtalk_cuda.so").write_bytes(b"never loaded")
    assert _native._load_cuda(tmp_path / "libcbtalk_cuda.so") == (None, "this torch is built without CUDA")


@pytest.mark.parametrize(
    ("capability", "archs", "runs"),
    [
        ((8, 0), "80-real 90a-real 100", True),
        ((8, 9), "80-real 90a-real 100", True),
        ((9, 0), "80-real 90a-real 100", True),
        ((12, 0), "80-real 90a-real 100", True),  # from the PTX
        ((7, 5), "80-real 90a-real 100", False),
        ((10, 0), "80-real 90a-real", False),
        ((9, 1), "90a-real", False),
        ((8, 0), "86", False),
        ((9, 0), "86-virtual", True),
        ((9, 0), "", False),
    ],
)
def test_a_gpu_that_the_cuda_kernels_were_not_compiled_for_has_a_reason(
    capability: tuple[int, int], archs: str, runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = SimpleNamespace(cbtalk_cuda_archs=archs.encode)
    monkeypatch.setattr(_native, "_cuda_library", library)
    monkeypatch.setattr(_native, "_cuda_reason", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    with FakeTensorMode(allow_non_fake_inputs=True):
        reason = _native.why_not_cuda(torch.empty(2, device="cuda:0"))
    assert (reason is None) == runs
    assert runs or f"compute capability {capability[0]}.{capability[1]}" in str(reason)


def test_the_check_of_a_gpu_is_no_graph_break(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "_cuda_library", SimpleNamespace(cbtalk_cuda_archs=lambda: b"80-real"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))

    def step(x: torch.Tensor) -> torch.Tensor:
        return x if _native._why_not_gpu(0) is None else x + 1

    compiled = torch.compile(step, fullgraph=True, backend="eager")
    assert torch.equal(compiled(torch.zeros(2)), torch.ones(2))


def test_the_cuda_library_names_its_architectures() -> None:
    path = _native._FOLDER / "libcbtalk_cuda.so"
    if not path.exists():
        pytest.skip("the CUDA C++ kernels were not built here: there is no nvcc")
    strings = path.read_bytes()
    assert b"80-real 90a-real 100\0" in strings and b"cbtalk_cuda_archs\0" in strings


@pytest.mark.parametrize("level", _build_info.levels.split())
def test_no_function_is_shared_between_the_levels(level: str) -> None:
    # The linker keeps one copy of an inline function: if that is the AVX-512 one, older processors stop on it.
    objects = sorted(OBJECTS.glob(f"cbtalk_core_{level}.dir/**/*.o"))
    if not objects:
        pytest.skip(f"no object files under {OBJECTS}: the library was built elsewhere")
    listing = subprocess.run(["nm", "--defined-only", *map(str, objects)], check=True, capture_output=True, text=True)
    symbols = [line.split()[1:] for line in listing.stdout.splitlines() if len(line.split()) == 3]
    assert any(kind == "T" for kind, _ in symbols)
    assert [name for kind, name in symbols if kind in "TWVu" and level not in name] == []


def compile_again(options: list[str], folder: Path) -> list[Path]:
    """The objects of the libraries' C++, each source once, compiled as in the build but for `options` at the end."""
    database = BUILD / "compile_commands.json"
    if not database.exists():
        pytest.skip(f"no {database}: the library was built elsewhere")
    objects = {}
    for entry in json.loads(database.read_text()):
        source = Path(entry["file"])
        if source.suffix != ".cpp" or source.parent not in (ROOT / "csrc" / "cpu", ROOT / "csrc" / "torch"):
            continue
        command = shlex.split(entry["command"])
        if source in objects:
            continue
        objects[source] = folder / f"{source.parent.name}_{source.stem}.o"
        command[command.index("-o") + 1] = str(objects[source])
        subprocess.run([*command, *options], check=True, cwd=entry["directory"])
    return list(objects.values())


@pytest.mark.slow
def test_a_function_of_one_name_has_one_body(tmp_path: Path) -> None:
    """The linker keeps one of several inline functions of a name: all objects must have it from the same line."""
    # Without optimisation nothing is inlined away, and debug information names the line. nm misreads some of DWARF 5.
    objects = compile_again(["-O0", "-gdwarf-4"], tmp_path)
    listing = subprocess.run(
        ["nm", "-l", "--defined-only", *map(str, objects)], check=True, capture_output=True, text=True
    )
    lines = defaultdict(set)
    for row in listing.stdout.splitlines():
        symbol, _, line = row.partition("\t")
        if (fields := symbol.split())[1:2] and fields[1] in "WVu" and "cbtalk" in symbol and line:
            lines[fields[2]].add(line)
    assert len(lines) > 40, listing.stdout
    assert {name: found for name, found in lines.items() if len(found) > 1} == {}


def test_what_a_device_is_stays_out_of_compiled_graphs() -> None:
    """The mark is set by hand, without the compiler's import; torch's own decorator must set the same."""

    def marked() -> None:
        return None

    torch.compiler.assume_constant_result(marked)
    assert vars(marked) and vars(marked).items() <= vars(_native._why_not_gpu).items()
