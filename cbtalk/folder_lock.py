"""A lock on a folder: two commands that write into one would spoil each other's files."""

import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cbtalk.errors import OutputError

logger = logging.getLogger(__name__)


@contextmanager
def alone_in(folder: Path, name: str, work: str) -> Iterator[None]:
    """Keeps a folder, which is made, to this process until the block or the process ends.

    Args:
        name: of the lock file in it, which says who has it.
        work: what the lock is for, in words, as "run".

    Raises OutputError where another process has it, or where it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / name).open("a+", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder}: is no folder that can be written ({error.strerror})") from error
    with file:
        try:
            # Not flock, whose lock would live on in forked processes when this one is killed.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                holder = f"another {work} is at work here ({file.read()})"
                raise OutputError(f"{folder}: {holder}; wait for its end, or choose another folder") from error
            logger.warning("%s: no lock against a second %s here: %s", folder, work, error.strerror)
        file.truncate(0)
        print(f"process {os.getpid()} on {socket.gethostname()}", end="", file=file, flush=True)
        yield
