"""Builds cbtalk: CMakeLists.txt describes the build, this file finds torch and drives CMake."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


def torch_folder() -> str:
    """The folder of the torch that this Python has.

    Asked of a fresh interpreter: pip builds in an environment of its own, in which the torch of the virtual
    environment cannot be imported. `-I` drops that environment, and nothing is imported, so it takes no time.
    """
    probe = "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')"
    found = subprocess.run([sys.executable, "-I", "-c", probe], check=True, capture_output=True, text=True)
    if not found.stdout.strip():
        sys.exit(f"cbtalk builds against the headers of torch >= 2.11: install torch for {sys.executable} first")
    return found.stdout.strip()


class CMakeBuild(build_ext):
    """Configures, builds and installs with CMake, into the wheel's tree or (in place) into the checkout."""

    def run(self) -> None:
        build = ROOT / "build" / "cmake"
        target = ROOT if self.inplace or self.editable_mode else Path(self.build_lib).resolve()
        cmake = shutil.which("cmake", path=self.tool_path())
        if cmake is None:
            sys.exit("cbtalk builds with CMake, and there is none: pip install cmake ninja")
        options = ["-G", "Ninja", f"-DCBTALK_TORCH_DIR={torch_folder()}"]
        environment = {**os.environ, "PATH": self.tool_path()}
        for command in (
            [cmake, "-S", str(ROOT), "-B", str(build), *options],
            [cmake, "--build", str(build)],
            [cmake, "--install", str(build), "--prefix", str(target)],
        ):
            subprocess.run(command, check=True, env=environment)

    @staticmethod
    def tool_path() -> str:
        """PATH with this Python's own programs first: cmake and ninja may be installed beside it."""
        return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


setup(ext_modules=[Extension("cbtalk._lib", sources=[])], cmdclass={"build_ext": CMakeBuild})
