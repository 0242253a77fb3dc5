"""Builds cbtalk: CMakeLists.txt describes the build, this file finds torch and drives CMake."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()

# Where each top package lies; a package that is imported as part of cbtalk may lie beside it.
FOLDERS = {"cbtalk": "cbtalk", "cbtalk.kernels": "kernels"}


def torch_folder() -> str:
    """The folder of the torch that this Python has.

    Asked of a fresh interpreter: pip builds in an environment of its own, in which the torch of the virtual
    environment cannot be imported. `-I` drops that environment, and nothing is imported, so it takes no time.
    """
    probe = "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')"
    found = subprocess.run([sys.executable, "-I", "-c", probe], check=True, capture_output=True, text=True)
    if not found.stdout.strip():
        sys.exit(
            f"cbtalk builds against the headers of torch >= 2.11: install torch for {sys.executable} first; "
            "uv and `python -m build`, whose builds have an environment of their own, need --no-build-isolation "
            "or --no-isolation, too"
        )
    return found.stdout.strip()


def tool_environment() -> dict[str, str]:
    """The environment with this Python's own programs first: cmake and ninja may be installed beside it."""
    return {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}


class CMakeBuild(build_ext):
    """Configures, builds and installs with CMake, into the wheel's tree or (in place) into the checkout."""

    def run(self) -> None:
        import pybind11

        in_place = self.inplace or self.editable_mode
        build = ROOT / "build" / "cmake" if in_place else Path(self.build_temp).resolve()
        target = ROOT if in_place else Path(self.build_lib).resolve()
        environment = tool_environment()
        if not in_place:  # a build before this one may have had CUDA
            shutil.rmtree(target / "cbtalk" / "_lib", ignore_errors=True)
        cmake = shutil.which("cmake", path=environment["PATH"])
        if cmake is None:
            sys.exit("cbtalk builds with CMake, and there is none: pip install cmake ninja")
        options = [
            f"-DCBTALK_TORCH_DIR={torch_folder()}",
            "-DCBTALK_PYTHON=ON",
            f"-DCBTALK_CUDA={os.environ.get('CBTALK_CUDA', 'AUTO')}",
            # Forgotten where the environment names none: CMake would keep those of the build before.
            f"-DCBTALK_CUDA_ARCHS={archs}" if (archs := os.environ.get("CBTALK_CUDA_ARCHS")) else "-UCBTALK_CUDA_ARCHS",
            "-DCMAKE_INSTALL_MESSAGE=LAZY",  # tell what is new alone
            f"-DCBTALK_WERROR={os.environ.get('CBTALK_WERROR', 'OFF')}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        ]
        for command in (
            [cmake, "-S", str(ROOT), "-B", str(build), "-G", "Ninja", *options],
            [cmake, "--build", str(build)],
            [cmake, "--install", str(build), "--prefix", str(target)],
        ):
            subprocess.run(command, check=True, env=environment)

    def get_outputs(self) -> list[str]:
        # CMake installs its files itself; setuptools is not to look for one named after the extension.
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}


def packages() -> list[str]:
    return [name for top, folder in FOLDERS.items() for name in [top, *(f"{top}.{p}" for p in find_packages(folder))]]


setup(
    packages=packages(),
    package_dir=FOLDERS,
    package_data={"cbtalk": ["py.typed", "*.pyi", "weights/*", "faces/yunet.*"]},
    ext_modules=[Extension("cbtalk._build_info", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
