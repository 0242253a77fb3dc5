"""File names of any bytes."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def utf8_name(path: Path) -> Iterator[Path]:
    """A name of the file in UTF-8, for libraries that take no other: its own, or that of a link for the time being."""
    if is_utf8(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "file"
        link.symlink_to(path.resolve())
        yield link


def printable(text: str) -> str:
    """Text as databases and terminals take it: bytes of file names that are no characters become escapes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_utf8(path: Path) -> bool:
    """Whether the name consists of characters; Python keeps other bytes of it as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in str(path))


def real_path(path: Path) -> Path:
    """A path with its links followed, as far as they lead; never an error, not for loops nor for impossible names."""
    try:
        return Path(os.path.realpath(path))
    except ValueError:  # a null byte, or half a character
        return path.absolute()
