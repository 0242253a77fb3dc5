"""Imports between the rooms of the package go one way."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "cbtalk"

FOUNDATION = {
    "errors",
    "atomic",
    "digest",
    "worker_process",
    "kept_warnings",
    "folder_lock",
    "interruptions",
    "file_names",
    "precision",
    "ranges",
    "csv_rows",
    "options",
}
MAY_IMPORT = {
    "errors": set(),
    "digest": set(),
    "worker_process": set(),
    "kept_warnings": set(),
    "folder_lock": {"errors"},
    "interruptions": set(),
    "atomic": {"errors"},
    "file_names": set(),
    "csv_rows": {"errors"},
    "options": {"errors"},
    "precision": {"errors"},
    "ranges": set(),
    "allocator": set(),
    "_build_info": set(),
    "_native": set(),
    "_triton": set(),
    "_vector_math": set(),
    "reference": set(),
    "kernels": set(),
    "ops": FOUNDATION | {"reference", "kernels", "_native", "_triton", "_vector_math"},
    "nn": FOUNDATION | {"ops"},
    "model": FOUNDATION | {"ops"},
    "media": FOUNDATION,
    "faces": FOUNDATION,
    "render": FOUNDATION | {"model", "media", "faces"},
    "batch": FOUNDATION | {"allocator", "model", "media", "render"},
    "prepare": FOUNDATION | {"media", "faces"},
    "pretrained": FOUNDATION | {"model", "faces"},
    "metrics": FOUNDATION | {"model", "pretrained"},
    "evaluate": FOUNDATION | {"model", "media", "faces", "pretrained", "metrics"},
    "dataset": FOUNDATION | {"media"},
    "train": FOUNDATION | {"model", "media", "ops", "nn", "pretrained", "metrics", "dataset"},
    "ablate": FOUNDATION | {"model", "train", "evaluate"},
    "figures": FOUNDATION | {"model", "media", "render"},
    "app": FOUNDATION | {"model", "media", "faces", "render", "batch"},
    "doctor": FOUNDATION | {"ops", "reference", "_native", "_triton", "_build_info", "model", "media", "render"},
    "export": FOUNDATION | {"model", "ops"},
    "cli": FOUNDATION
    | {"allocator", "model", "media", "faces", "render", "batch", "prepare", "train", "evaluate", "ablate", "figures"}
    | {"doctor", "dataset", "export", "app"},
    "__main__": {"cli"},
    "__init__": FOUNDATION | {"ops", "model", "render"},
}

# Within ops: what every op may import, and who may import every op.
OP_TOOLS = {"backends", "kernel_op", "layout"}
SEE_ALL_OPS = {"__init__", "examples"}


def imported_modules(source: str) -> Iterator[str]:
    """Dotted names that a file imports, at its top or inside a function; `from a import b` counts as a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide which room is meant"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def violations(module: tuple[str, ...], source: str) -> list[str]:
    """The imports of a file that it may not have; module ("ops", "flow_warp") is cbtalk/ops/flow_warp.py."""
    found = []
    for name in imported_modules(source):
        top, *rest = name.split(".")
        if top in {"torchvision", "bench", "tests", "setuptools"}:
            found.append(name)
        if top != "cbtalk" or rest == ["__version__"]:
            continue
        room = rest[0]
        if room == module[0]:
            # an op may lie in several files
            own = rest[1] in OP_TOOLS or rest[1].startswith(module[-1])
            if room == "ops" and module[-1] not in SEE_ALL_OPS and not own:
                found.append(name)
        elif room not in MAY_IMPORT[module[0]]:
            found.append(name)
    return found


FILES = sorted(PACKAGE.rglob("*.py")) + sorted(PACKAGE.with_name("kernels").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE.parent)))
def test_a_file_imports_only_what_its_room_may(path: Path) -> None:
    module = path.relative_to(PACKAGE.parent).with_suffix("").parts
    assert violations(module[1:] if module[0] == "cbtalk" else module, path.read_text()) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        (("reference", "flow_warp"), "from cbtalk.ops import flow_warp"),
        (("model", "talker"), "import cbtalk.render.engine"),
        (("model", "talker"), "from cbtalk import load"),
        (("media", "images"), "from cbtalk.model.config import TalkerConfig"),
        (("ops", "flow_warp"), "from cbtalk.ops.nearest_code import nearest_code"),
        (("ops", "flow_warp"), "from cbtalk.ops.examples import EXAMPLES"),
        (("evaluate", "judge"), "import cbtalk.train.losses"),
        (("train", "preview"), "from cbtalk.evaluate.judge import Judge"),
        (("train", "trainer"), "def f():\n    from cbtalk.cli import main"),
        (("model", "blocks"), "import torchvision.ops"),
    ],
)
def test_a_planted_wrong_import_is_found(module: tuple[str, ...], line: str) -> None:
    assert violations(module, line)
