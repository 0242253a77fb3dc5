"""A lock on the output folder of a run: two runs in one folder would spoil each other's files."""

import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cbtalk.atomic import left_over
from cbtalk.errors import ConfigError, OutputError

NAME = ".train.lock"

logger = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps a folder, which is made, to this process until the block or the process ends.

    What killed runs left half written in it is removed.

    Raises ConfigError where another process has it, OutputError where it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / NAME).open("a+", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder}: is no folder that can be written ({error.strerror})") from error
    with file:
        try:
            # Not flock, whose lock would live on in the processes that read frames when this one is killed.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                raise ConfigError(
                    f"{folder}: another run is at work here ({file.read()}); wait for its end, or choose another folder"
                ) from error
            logger.warning("%s: no lock against a second run here: %s", folder, error.strerror)
        file.truncate(0)
        print(f"process {os.getpid()} on {socket.gethostname()}", end="", file=file, flush=True)
        for inside in (folder, *(path for path in folder.iterdir() if path.is_dir())):
            for stray, _ in left_over(inside):
                stray.unlink(missing_ok=True)
        yield
