"""Tests of the C++ tests: a fault planted in a formula that every backend shares turns them red."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[1] / "csrc"
COMPILER = shutil.which("g++") or shutil.which("c++")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")]


# As CMakeLists.txt has them.
LEVELS = {"baseline": [], "avx2": ["-mavx2", "-mfma", "-mf16c"]}
LEVELS["avx512"] = [*LEVELS["avx2"], "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
# A test is linked with sources compiled for each level, and once.
KERNELS = {"test_nearest_code": (["nearest_code", "nearest_code_pack"], ["dispatch", "code_counts"])}


def build_kernels(folder: Path, test: str, include: list[str]) -> list[str]:
    """The object files of the kernels that the test calls."""
    each_level, once = KERNELS.get(test, ([], []))
    levels = LEVELS if platform.machine() in ("x86_64", "AMD64") else {"baseline": []}
    builds = [
        (name, level, [f"-DCBTALK_ISA={level}", *flags]) for name in each_level for level, flags in levels.items()
    ]
    builds += [(name, "once", []) for name in once]
    objects = []
    for name, level, flags in builds:
        objects.append(str(folder / f"{name}_{level}.o"))
        command = [str(COMPILER), "-std=c++20", "-O1", "-ffp-contract=off", *flags, *include]
        subprocess.run([*command, "-c", str(CSRC / "cpu" / f"{name}.cpp"), "-o", objects[-1]], check=True)
    return objects


def run_test(folder: Path, test: str, header: str, before: str, after: str) -> int:
    """The exit code of csrc/tests/<test>.cpp, built with `before` in a header replaced by `after`."""
    headers = folder / "include" / "cbtalk"
    shutil.copytree(CSRC / "include" / "cbtalk", headers)
    text = (headers / header).read_text()
    assert before in text, f"{header} has no {before!r}"
    (headers / header).write_text(text.replace(before, after))
    program = folder / test
    include = [f"-I{folder / 'include'}", f"-I{CSRC / 'cpu'}"]
    source = CSRC / "tests" / f"{test}.cpp"
    parts = [str(source), *build_kernels(folder, test, include)]
    subprocess.run([str(COMPILER), "-std=c++20", "-O1", *include, *parts, "-o", str(program)], check=True)
    return subprocess.run([program], capture_output=True).returncode


@pytest.mark.parametrize(
    ("test", "header", "before", "after"),
    [
        ("test_geometry", "geometry.h", "align_corners ? last :", "align_corners ? last + 1 :"),
        (
            "test_geometry",
            "geometry.h",
            "source_size - 1) / static_cast<float>(target_size - 1)",
            "source_size) / 1.0f",
        ),
        ("test_geometry", "geometry.h", "both ? one - fraction", "both ? fraction"),
        ("test_geometry", "geometry.h", "const Real clipped =", "const Real clipped = true ? position :"),
        ("test_geometry", "geometry.h", "turned ? -one : one", "one"),
        ("test_ordering", "ordering.h", "(score < best_score)", "(score <= best_score)"),
        ("test_ordering", "ordering.h", "index < best_index", "index > best_index"),
        ("test_nearest_code", "nearest_code_doubt.h", "return 0x1p-23f *", "return 0.0f *"),
        ("test_cuda_nearest_code", "cuda/nearest_code_doubt.h", "fmin(second, nearer ? best : score)", "best"),
        ("test_cuda_nearest_code", "cuda/nearest_code_doubt.h", "0.125f * e_length", "0.0f"),
        ("test_cuda_nearest_code", "cuda/nearest_code_table.h", "entry = smaller;", ""),
        ("test_cuda_nearest_code", "cuda/nearest_code_table.h", "element += 0.0f;", ""),
    ],
)
def test_a_planted_fault_is_found(tmp_path: Path, test: str, header: str, before: str, after: str) -> None:
    assert run_test(tmp_path / "sound", test, header, before, before) == 0
    assert run_test(tmp_path / "faulty", test, header, before, after) not in (0, 77)
