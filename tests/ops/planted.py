"""A pytest plugin that plants a fault in a module of cbtalk before the tests import it: `pytest -p tests.ops.planted`.

The environment variable CBTALK_PLANT holds JSON: the module, and pairs of a text of it to replace and what by.
"""

import importlib.abc
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType


class Planted(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds one module, and loads it with parts of its text replaced."""

    def __init__(self, module: str, *pairs: tuple[str, str]) -> None:
        self.module, self.pairs = module, pairs
        self.file = Path()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.module or path is None:
            return None
        self.file = Path(path[0], f"{fullname.rpartition('.')[2]}.py")
        return importlib.util.spec_from_file_location(fullname, self.file, loader=self)

    def get_source(self, fullname: str) -> str:
        source = self.file.read_text()
        for before, after in self.pairs:
            assert before in source, f"{fullname} has no {before!r}"
            source = source.replace(before, after)
        return source


def pytest_configure() -> None:
    sys.meta_path.insert(0, Planted(*json.loads(os.environ["CBTALK_PLANT"])))
