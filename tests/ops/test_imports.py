"""The ops and the modules around them as a library of their own: with torch and numpy, without the renderer's needs."""

import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

NEEDED = {"torch", "numpy"}
PROGRAM = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1:]))  # None there makes an import fail
import torch, cbtalk.nn, cbtalk.ops
cbtalk.ops.nearest_code(torch.rand(9, 4), torch.rand(5, 4))
"""


def modules_of_other_dependencies() -> list[str]:
    """The modules of every package that pyproject.toml names, extras included, but for what the ops need."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    requirements = [line for lines in lists for line in lines]
    names = {canonicalize_name(Requirement(line).name) for line in requirements} - NEEDED
    return [
        module
        for module, distributions in packages_distributions().items()
        if {canonicalize_name(name) for name in distributions} <= names - {"cbtalk"}
    ]


def test_they_need_torch_and_numpy_alone() -> None:
    blocked = modules_of_other_dependencies()
    assert {"av", "PIL", "yaml", "safetensors", "tqdm", "tyro"} <= set(blocked)
    done = subprocess.run([sys.executable, "-c", PROGRAM, *blocked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
