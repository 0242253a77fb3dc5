"""Output files that appear complete or not at all."""

import atexit
import contextlib
import errno
import os
import secrets
import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from cbtalk.errors import OutputError, SystemFailure

SUFFIX = ".cbtalk-part"
LONGEST_NAME = 255  # bytes, of a file name on the usual file systems

# The machine's fault (exit code 1); every other refusal is about the place that the user chose.
MACHINE_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE}

_ENDING = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]  # Windows has no SIGHUP

_unfinished: dict[str, int] = {}  # temporary file -> process that writes it (a forked child must not remove it)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give an empty temporary file to write; rename it to `path` when the block ends, remove it when the block fails.

    The temporary file is `.<name>.<random>.cbtalk-part` in the folder of `path`, so that the rename never crosses file
    systems and what a killed process leaves behind can be recognised. File and folder are flushed to the disk before
    and after the rename. An existing `path` stays untouched until then; the new file has its permissions and, where the
    system allows it, its owner. A link is followed. The temporary file is also removed on SIGTERM, on SIGHUP and at the
    exit of the interpreter.

    Raises OutputError where `path` cannot be written, SystemFailure where the disk is full or fails.
    """
    path = Path(path)
    target = _writable_target(path)
    with _translated_errors(path):
        temporary = _create(target)
    _unfinished[str(temporary)] = os.getpid()
    try:
        with _removed_on_signals(), _translated_errors(path, only_machine=True):
            yield temporary
        with _translated_errors(path):
            _publish(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
        _unfinished.pop(str(temporary), None)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8, as `atomic_path`; what is no text, as parts of some file names, is escaped."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def left_over(folder: Path) -> Iterator[tuple[Path, str]]:
    """Temporary files and folders that killed processes left in a folder, with the name each was to get."""
    for path in sorted(folder.glob(f".*{SUFFIX}")) if folder.is_dir() else ():
        yield path, path.name.removeprefix(".").removesuffix(SUFFIX).rpartition(".")[0]


@contextlib.contextmanager
def _translated_errors(path: Path, *, only_machine: bool = False) -> Iterator[None]:
    """Turn an OSError about the output `path` into one clear line; `only_machine` leaves all but full disks alone."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in MACHINE_FAULTS:
            raise SystemFailure(f"{path}: cannot be written: {reason}; free space or choose another disk") from error
        if only_machine:
            raise
        raise OutputError(f"{path}: cannot be written: {reason}; choose another place") from error


def _writable_target(path: Path) -> Path:
    """The file that `path` stands for, links followed, after the checks that can be made before the work."""
    with _translated_errors(path):
        target = Path(os.path.realpath(path))
        if target.is_dir():
            raise OutputError(f"{path}: is a folder; name a file in it")
        if target.is_symlink():
            raise OutputError(f"{path}: is a link that leads to itself; choose another name")
        if not target.parent.is_dir():
            raise OutputError(f"{path}: the folder {target.parent} does not exist; create it first")
        if target.exists() and not target.is_file():
            raise OutputError(f"{path}: is not an ordinary file; choose another name")
        if target.exists() and not os.access(target, os.W_OK):
            raise OutputError(f"{path}: is write-protected; choose another name")
    return target


def _create(target: Path) -> Path:
    mark = f".{secrets.token_hex(4)}{SUFFIX}"
    stem = os.fsencode(target.name)[: LONGEST_NAME - len(mark) - 1]
    temporary = target.with_name(f".{stem.decode(errors='ignore')}{mark}")
    before = target.stat() if target.exists() else None
    mode = 0o666 if before is None else 0o600  # nobody sees more of the new file than of the old one
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_CLOEXEC", 0), mode)
    os.close(descriptor)
    if before is not None:
        _take_over(temporary, before)
    return temporary


def _take_over(temporary: Path, before: os.stat_result) -> None:
    """Give a file the owner, group and permissions of the one that it will replace, as far as the system allows it."""
    if hasattr(os, "chown"):
        with contextlib.suppress(PermissionError):
            os.chown(temporary, before.st_uid, before.st_gid)
    temporary.chmod(stat.S_IMODE(before.st_mode) & 0o777)


def _publish(temporary: Path, target: Path) -> None:
    _flush(temporary, os.O_RDWR)
    temporary.replace(target)
    with contextlib.suppress(OSError):  # some network file systems cannot flush a folder; the file is safe all the same
        _flush(target.parent, os.O_RDONLY)


def _flush(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_unfinished() -> None:
    for temporary, process in list(_unfinished.items()):
        if process == os.getpid():
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


atexit.register(_remove_unfinished)  # for writers in daemon threads, whose `finally` never runs


def _remove_and_die(number: int, _frame: FrameType | None) -> None:
    _remove_unfinished()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)  # so that the parent sees what ended the process


@contextlib.contextmanager
def _removed_on_signals() -> Iterator[None]:
    """Remove the unfinished files before a termination signal ends the process, unless someone else handles it."""
    mine = []
    if threading.current_thread() is threading.main_thread():
        mine = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in mine:
        signal.signal(number, _remove_and_die)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)
