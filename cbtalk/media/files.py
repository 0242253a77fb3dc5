"""Checks of an input file before a decoder sees it."""

import stat
from pathlib import Path

from cbtalk.errors import InputError

SMALLEST_SIDE = 16  # pixels: less shows no face, and no crop of it means anything


def check_readable(path: Path, kind: str) -> None:
    """Raise InputError unless `path` is an ordinary, readable file with something in it; `kind` says what is wanted."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{path}: is a folder; name a {kind} in it")
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path}: is not an ordinary file; copy the {kind} to a file first")
        if status.st_size == 0:
            raise InputError(f"{path}: is empty; copy the {kind} again")
        path.open("rb").close()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the name of the {kind}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be opened: {error.strerror}") from error
    except ValueError as error:  # a null byte in the name
        raise InputError(f"{str(path)!r}: is not a file name") from error


def check_size(path: Path, width: int, height: int) -> None:
    """Raise InputError for an image with a side below `SMALLEST_SIDE` pixels."""
    if min(width, height) < SMALLEST_SIDE:
        raise InputError(f"{path}: {width} x {height} pixels are too few; each side needs {SMALLEST_SIDE} or more")
