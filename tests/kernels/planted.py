"""A pytest plugin that plants a fault in a Triton kernel before the tests run: `pytest -p tests.kernels.planted`.

The environment variable CBTALK_PLANT holds JSON: the op, the text of kernels/<op>.py to replace, and what by.
"""

import importlib
import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path


def pytest_configure() -> None:
    """Put the faulty module where the op looks for its kernels; its source must be a file, for Triton reads it."""
    op, before, after = json.loads(os.environ["CBTALK_PLANT"])
    name = f"cbtalk.kernels.{op}"
    package = importlib.import_module("cbtalk.kernels")
    source = Path(str(package.__file__)).with_name(f"{op}.py").read_text()
    assert before in source, f"kernels/{op}.py has no {before!r}"
    file = Path(tempfile.mkdtemp()) / f"{op}.py"
    file.write_text(source.replace(before, after))
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    setattr(package, op, module)
