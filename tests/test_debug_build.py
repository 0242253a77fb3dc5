"""The compiled library without optimisation: what a compiler inlines must not decide what an op gives."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
def test_the_ops_pass_their_tests_in_a_debug_build(tmp_path: Path) -> None:
    environment = {**os.environ, "CMAKE_BUILD_TYPE": "Debug", "CBTALK_CUDA": "OFF"}
    folders = ["--build-temp", str(tmp_path / "build"), "--build-lib", str(tmp_path / "lib")]
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", *folders], check=True, cwd=ROOT, env=environment
    )
    libraries = tmp_path / "lib" / "cbtalk" / "_lib"
    assert (libraries / "libcbtalk_cpu.so").exists()
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", "tests/ops"],
        cwd=ROOT,
        env={**os.environ, "CBTALK_LIBRARIES": str(libraries)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
