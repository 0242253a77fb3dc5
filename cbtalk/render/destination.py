"""The place of an output, tried before any work begins."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from cbtalk.atomic import atomic_path
from cbtalk.errors import OutputError


def check_destination(output: Path, inputs: Iterable[Path], suffixes: tuple[str, ...]) -> None:
    """Raise OutputError where no file can be made at `output`, or where it would replace one of `inputs`.

    Links are followed. The place is tried by starting a file there and giving it up: permissions alone do not tell
    for root, for read-only file systems or for network shares.
    """
    if output.suffix.lower() not in suffixes:
        raise OutputError(f"{output}: the name must end in {' or '.join(suffixes)}")
    with suppress(_GivenUp), atomic_path(output):
        raise _GivenUp
    for path in inputs:
        with suppress(OSError):  # one of them is not there
            if output.samefile(path):
                raise OutputError(f"{output}: is the same file as the input {path}; choose another name")


class _GivenUp(Exception):
    pass
