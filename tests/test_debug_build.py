"""The compiled library without optimisation: what a compiler inlines must not decide what an op gives."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler"),
]


def run_op_tests(folder: Path, tests: str, root: Path = ROOT, build_type: str = "Debug") -> tuple[int, str]:
    """Builds the library of a checkout into a folder, and runs tests of the ops with it: exit code and output."""
    environment = {**os.environ, "CMAKE_BUILD_TYPE": build_type, "CBTALK_CUDA": "OFF"}
    folders = ["--build-temp", str(folder / "build"), "--build-lib", str(folder / "lib")]
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", *folders], check=True, cwd=root, env=environment
    )
    libraries = folder / "lib" / "cbtalk" / "_lib"
    assert (libraries / "libcbtalk_cpu.so").exists()
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", tests],
        cwd=ROOT,
        env={**os.environ, "CBTALK_LIBRARIES": str(libraries)},
        capture_output=True,
        text=True,
    )
    return result.returncode, result.stdout + result.stderr


def test_the_ops_pass_their_tests_in_a_debug_build(tmp_path: Path) -> None:
    code, output = run_op_tests(tmp_path, "tests/ops")
    assert code == 0, output


def test_a_swapped_layout_predicate_of_the_bindings_is_found(tmp_path: Path) -> None:
    for name in ("setup.py", "pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    check = tmp_path / "csrc" / "torch" / "check.h"
    text = check.read_text()
    before = "STD_TORCH_CHECK(is_dense_channels_last(x), name"
    assert before in text
    check.write_text(text.replace(before, "STD_TORCH_CHECK(has_adjacent_channels(x), name"))
    code, output = run_op_tests(tmp_path, "tests/ops/test_raw_ops.py", tmp_path, "Release")
    assert code == 1, output  # failures, and no error of pytest's own
