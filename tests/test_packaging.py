import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import cbtalk

ROOT = Path(__file__).parents[1]


TRITON_OF_TORCH = {"2.13.0": "3.7.1"}  # by the metadata of torch's package for CUDA


def pins() -> dict[str, SpecifierSet]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    return {(pin := Requirement(line)).name: pin.specifier for line in lines if line}


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    result = subprocess.run(
        [str(word) for word in command], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def package_files(kernels: str = "kernels") -> set[str]:
    """The files that a user must get: sources, type marks, weights; the Triton kernels are expected in `kernels`."""
    patterns = ("cbtalk/**/*.py", "cbtalk/py.typed", "cbtalk/*.pyi", "cbtalk/weights/*", "cbtalk/faces/yunet.*")
    package = {str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern)}
    return package | {f"{kernels}/{path.name}" for path in ROOT.glob("kernels/*.py")}


def test_every_file_of_the_package_is_installed(tmp_path: Path) -> None:
    run(sys.executable, "setup.py", "-q", "egg_info", "--egg-base", tmp_path, "build_py", "--build-lib", tmp_path)
    built = {str(path.relative_to(tmp_path)) for path in tmp_path.glob("cbtalk/**/*") if path.is_file()}
    assert built == package_files("cbtalk/kernels")


def test_the_source_distribution_can_be_built_and_tested(tmp_path: Path) -> None:
    run(sys.executable, "setup.py", "-q", "egg_info", "--egg-base", tmp_path, "sdist", "--dist-dir", tmp_path)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    # CMake builds every source of a folder, and none is to be missing there.
    suffixes = {".cpp", ".cu", ".h", ".cuh"}
    sources = {str(path.relative_to(ROOT)) for path in ROOT.glob("csrc/**/*") if path.suffix in suffixes}
    needed = {
        ".ci/nvcc",
        "CMakeLists.txt",
        "Dockerfile",
        "LICENSE",
        "Makefile",
        "constraints.txt",
        "pyproject.toml",
        "setup.py",
        "tests/helpers/checks.py",
    }
    examples = {str(path.relative_to(ROOT)) for path in ROOT.glob("examples/*.py")}
    assert sources | needed | examples | package_files() <= names
    assert not [name for name in names if name.endswith(".so")]


def test_every_pin_is_for_the_oldest_python() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = project["requires-python"].removeprefix(">=") + ".0"
    for name, pinned in pins().items():
        with suppress(PackageNotFoundError):
            if pinned.contains(version(name)):
                needed = str(metadata(name).json.get("requires_python") or "")
                assert SpecifierSet(needed).contains(oldest), f"{name} {version(name)} needs Python {needed}"


def test_torchs_own_packages_are_pinned_as_it_needs_them() -> None:
    # torch's builds for CUDA, those of the index, need one Triton; its builds for CPUs need none.
    (torch,) = pins()["torch"]
    assert pins()["triton"].contains(TRITON_OF_TORCH[torch.version])
    for need in map(Requirement, requires("torch") or []):
        if need.marker is None and (pinned := pins().get(need.name)) is not None:
            assert any(need.specifier.contains(pin.version) for pin in pinned), (
                f"torch needs {need}, pinned is {pinned}"
            )


def test_a_checkout_that_is_not_installed_finds_its_triton_kernels(tmp_path: Path) -> None:
    for folder in ("cbtalk", "kernels"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("_lib", "*.so", "weights"))
    program = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "Editable" not in getattr(finder, "__name__", "")]
import cbtalk.kernels
print(cbtalk.kernels.__file__)
"""
    printed = run(sys.executable, "-c", program, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert printed.strip() == str(tmp_path / "kernels" / "__init__.py")


def test_a_folder_named_like_the_package_does_not_hide_it(tmp_path: Path) -> None:
    (tmp_path / "cbtalk" / "docs").mkdir(parents=True)  # as where somebody cloned the repository
    program = "import cbtalk, cbtalk.kernels; cbtalk.load; print(cbtalk.__version__)"
    assert run(sys.executable, "-c", program, cwd=tmp_path).strip() == cbtalk.__version__


@pytest.mark.parametrize(("of", "remedy"), [("csrc", "make build"), ("site-packages", "install cbtalk anew")])
def test_without_the_compiled_library_the_reference_answers_and_the_reason_is_told(
    tmp_path: Path, of: str, remedy: str
) -> None:
    (tmp_path / of).mkdir()
    shutil.copytree(ROOT / "cbtalk", tmp_path / "cbtalk", ignore=shutil.ignore_patterns("_lib", "*.so", "weights"))
    program = """
import torch, cbtalk
from cbtalk import _native, ops
feature = torch.rand(1, 3, 5, 5)
rows, columns = torch.meshgrid(torch.linspace(-1, 1, 5), torch.linspace(-1, 1, 5), indexing="ij")
identity = torch.stack([columns, rows], -1)[None]
torch.testing.assert_close(ops.flow_warp(feature, identity), feature)
try:
    ops.flow_warp(feature, identity, backend="cpp")
except cbtalk.BackendError as error:
    print(error)
"""
    printed = run(sys.executable, "-c", program, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert remedy in printed


@pytest.mark.slow
def test_the_wheel_is_installed_and_used_without_a_compiler() -> None:
    pytest.importorskip("auditwheel", reason="auditwheel is not installed (extra dev)")
    torch = version("torch").partition("+")[0]
    said = run(sys.executable, "-m", "bench.wheel_check", "--torch", torch, "--sdist", CBTALK_CUDA="OFF")
    assert "manylinux" in said.splitlines()[0]
    assert said.count("all is well") == 2  # of the wheel, and of the source distribution
    assert "demo.mp4: 8 frames" in said


@pytest.mark.slow
def test_the_wheel_builds_in_isolation_without_nvcc_and_runs(tmp_path: Path) -> None:
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, ROOT, CBTALK_CUDA="OFF")
    wheel = next(tmp_path.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    assert package_files("cbtalk/kernels") | {"cbtalk/_lib/libcbtalk_cpu.so"} <= names
    assert not any("libcbtalk_cuda" in name for name in names)
    program = """
from cbtalk import _native, _build_info
print(_native.__file__, _native.why_not_cpp(), repr(_build_info.cuda))
print(_native.why_not_cuda())
"""
    facts, reason = run(sys.executable, "-c", program, cwd=tmp_path, PYTHONPATH=str(tmp_path / "site")).splitlines()
    assert facts.split() == [str(tmp_path / "site" / "cbtalk" / "_native.py"), "None", "''"]
    assert "nvcc" in reason
