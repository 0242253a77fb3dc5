"""The output folder of a run, kept to it, and cleaned of what killed runs left half written."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cbtalk.atomic import left_over
from cbtalk.folder_lock import alone_in


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps a folder to this process, as `alone_in`; what killed runs left half written in it is removed."""
    with alone_in(folder, ".train.lock", "run"):
        for inside in (folder, *(path for path in folder.iterdir() if path.is_dir())):
            for stray, _ in left_over(inside):
                stray.unlink(missing_ok=True)
        yield
