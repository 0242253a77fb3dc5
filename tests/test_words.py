"""Docstrings and comments begin with what the thing is or does, and not with a riddle."""

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("cbtalk", "kernels", "bench", "examples", "tests")
FILES = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
CPP_SUFFIXES = {".cpp", ".cu", ".cuh", ".h"}
CPP_FILES = [path for top in ("csrc", "tests") for path in (ROOT / top).rglob("*") if path.suffix in CPP_SUFFIXES]
RIDDLES = re.compile(r"(What|Where|How|Why|Which|Who|When)\b")


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Every string that stands alone, with its line: the docstrings of modules, classes, functions and fields."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def comments(path: Path) -> Iterator[tuple[int, str]]:
    """The first line of every comment that has its lines for itself."""
    last = 0
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT and token.line.lstrip().startswith("#"):
                if token.start[0] != last + 1:
                    yield token.start[0], token.string.lstrip("# ")
                last = token.start[0]


def cpp_comments(path: Path) -> Iterator[tuple[int, str]]:
    """The first line of every comment in C++ that has its lines for itself."""
    last = 0
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.lstrip().startswith("//"):
            if number != last + 1:
                yield number, line.lstrip().lstrip("/ ")
            last = number


def test_no_docstring_or_comment_opens_with_a_free_relative_clause() -> None:
    openings = [(path, *one) for path in FILES for one in (*docstrings(path), *comments(path))]
    openings += [(path, *one) for path in CPP_FILES for one in cpp_comments(path)]
    found = [f"{path}:{line}: {text[:60]}" for path, line, text in openings if RIDDLES.match(text)]
    assert FILES and CPP_FILES and not found, "\n".join(found)
