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
    for path in inputs:
        if output.resolve() == path.resolve() or (output.exists() and path.exists() and output.samefile(path)):
            raise OutputError(f"{output}: is the same file as the input {path}; choose another name")
    with suppress(_GivenUp), atomic_path(output):
        raise _GivenUp


class _GivenUp(Exception):
    pass
