"""The ledger of a batch: which jobs are waiting, running, done or failed, in an SQLite file beside the outputs."""

import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple

from cbtalk.atomic import MACHINE_FAULTS, left_over
from cbtalk.batch.remote_files import File, Url, file_of, size_of
from cbtalk.digest import digest_of
from cbtalk.errors import InputError, OutputError, SystemFailure
from cbtalk.file_names import printable

NAME = "batch.sqlite3"
_LOCK = ".batch.lock"
State = Literal["waiting", "running", "done", "failed"]
STATES: tuple[State, ...] = ("waiting", "running", "done", "failed")

_TABLES = """
CREATE TABLE IF NOT EXISTS jobs (
    output TEXT PRIMARY KEY, source TEXT, driving TEXT, options TEXT, fingerprint TEXT, state TEXT,
    attempts INTEGER DEFAULT 0, error TEXT, warnings TEXT, frames INTEGER, seconds REAL, bytes INTEGER, changed REAL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INTEGER, mtime INTEGER, digest TEXT) WITHOUT ROWID;
"""


class Entry(NamedTuple):
    """A job as the ledger knows it, names printable.

    output: below the batch's folder, or a URL; options: JSON; attempts: how often it was begun since its inputs,
    options or weights last changed; bytes: of the finished output.
    """

    output: str
    source: str
    driving: str
    options: str
    fingerprint: str
    state: State
    attempts: int
    error: str | None
    warnings: str | None
    frames: int | None
    seconds: float | None
    bytes: int | None
    changed: float  # seconds since 1970


class Ledger:
    """The ledger in `folder`, open for changes; make one with `open_ledger`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._base = sqlite3.connect(folder / NAME, isolation_level=None)
        self._base.execute("PRAGMA journal_mode=WAL")
        self._base.execute("PRAGMA synchronous=FULL")
        self._base.executescript(_TABLES)

    def close(self) -> None:
        """Write everything into the one file."""
        self._base.close()

    def plan(self, entries: Iterable[tuple[str, str, str, str, str]]) -> list[str]:
        """Enters jobs (output, source, driving, options, fingerprint) and says which outputs are still to be made.

        Done stays what has the same fingerprint and its output in place, of the size that it had. A job that was
        running when its batch was stopped waits again, and one that failed is tried again: both after all others, for
        they may be what stopped it.
        """
        left: dict[str, int] = {}  # output -> attempts before
        with self._transaction():
            for output, source, driving, options, fingerprint in entries:
                known = self.entry(output)
                same = known is not None and known.fingerprint == fingerprint
                if known is not None and same and self._finished(output, known):
                    continue
                left[output] = known.attempts if known is not None and same and known.state != "done" else 0
                self._base.execute(
                    "INSERT OR REPLACE INTO jobs (output, source, driving, options, fingerprint, state, attempts, "
                    "changed) VALUES (?, ?, ?, ?, ?, 'waiting', ?, ?)",
                    (
                        *map(printable, (output, source, driving)),
                        options,
                        fingerprint,
                        left[output],
                        time.time(),
                    ),
                )
        return sorted(left, key=lambda output: left[output] > 0)

    def entry(self, output: str) -> Entry | None:
        """The job of an output."""
        query = f"SELECT {', '.join(Entry._fields)} FROM jobs WHERE output = ?"
        row = self._base.execute(query, (printable(output),)).fetchone()
        return None if row is None else Entry(*row)

    def entries(self) -> list[Entry]:
        """All jobs that the ledger knows, in the order of their outputs."""
        return [Entry(*row) for row in self._base.execute(f"SELECT {', '.join(Entry._fields)} FROM jobs")]

    def started(self, output: str) -> None:
        """A worker has the job now."""
        self._change(output, "state = 'running', attempts = attempts + 1, error = NULL")

    def done(self, output: str, frames: int, seconds: float, size: int, warnings: list[str]) -> None:
        """The output is in its place, of so many bytes."""
        values = (frames, seconds, json.dumps(warnings) if warnings else None, size)
        self._change(output, "state = 'done', frames = ?, seconds = ?, warnings = ?, bytes = ?, error = NULL", values)

    def failed(self, output: str, error: str, *, again: bool) -> None:
        """The job ended with an error; `again`: it waits to be tried once more."""
        self._change(output, "state = ?, error = ?", ("waiting" if again else "failed", printable(error)))

    def put_back(self, output: str) -> None:
        """The job was not at fault and waits again, as if it had not begun."""
        self._change(output, "state = 'waiting', attempts = attempts - 1")

    def digest(self, path: File) -> str:
        """Fingerprint of a file's content, read again only where size or time have changed; of a URL its version."""
        if isinstance(path, Url):
            return path.version()
        status = path.stat()
        key = printable(str(path.resolve()))
        row = self._base.execute("SELECT size, mtime, digest FROM files WHERE path = ?", (key,)).fetchone()
        if row is not None and row[:2] == (status.st_size, status.st_mtime_ns):
            return str(row[2])
        digest = digest_of(path)
        with self._transaction():
            values = (key, status.st_size, status.st_mtime_ns, digest)
            self._base.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", values)
        return digest

    def _finished(self, output: str, entry: Entry) -> bool:
        return entry.state == "done" and size_of(file_of(output, self.folder)) == entry.bytes

    def _change(self, output: str, assignments: str, values: tuple[object, ...] = ()) -> None:
        with self._transaction():
            self._base.execute(
                f"UPDATE jobs SET {assignments}, changed = ? WHERE output = ?",
                (*values, time.time(), printable(output)),
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of it or nothing, on the disk when it ends."""
        try:
            self._base.execute("BEGIN IMMEDIATE")
            yield
            self._base.execute("COMMIT")
        except sqlite3.OperationalError as failure:
            raise SystemFailure(f"{self.folder / NAME}: cannot be written: {failure}") from failure
        finally:
            if self._base.in_transaction:
                with suppress(sqlite3.Error):
                    self._base.execute("ROLLBACK")


@contextmanager
def open_ledger(folder: Path) -> Iterator[Ledger]:
    """The ledger of a folder, for one batch at a time: a second is refused, workers left by a dead one are awaited.

    Raises OutputError where another batch is at work in the folder, or where no ledger can be made there, and
    SystemFailure where the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o666)
    except OSError as failure:
        kind = SystemFailure if failure.errno in MACHINE_FAULTS else OutputError
        raise kind(f"{folder}: is no folder that can be written ({failure.strerror})") from failure
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as failure:
            raise OutputError(f"{folder}: another batch is at work here; wait for its end or stop it") from failure
        with _await_workers(folder):
            try:
                ledger = Ledger(folder)
            except sqlite3.Error as failure:
                full = failure.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
                kind = SystemFailure if full else OutputError
                raise kind(f"{folder / NAME}: is no ledger that can be used ({failure})") from failure
        try:
            yield ledger
        finally:
            ledger.close()
    finally:
        os.close(lock)


def is_at_work(folder: Path) -> bool:
    """Whether a batch is at work in a folder now."""
    with suppress(FileNotFoundError):
        lock = os.open(folder / _LOCK, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
    return False


def read_ledger(path: Path) -> list[Entry]:
    """The jobs of a ledger, or of the one in a folder, while a batch may be changing it.

    Raises InputError where there is none.
    """
    file = path / NAME if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{file}: there is no ledger; name the folder of a batch")
    try:
        base = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)
        try:
            return [Entry(*row) for row in base.execute(f"SELECT {', '.join(Entry._fields)} FROM jobs")]
        finally:
            base.close()
    except sqlite3.Error as failure:
        raise InputError(f"{file}: is not the ledger of a batch ({failure})") from failure


def worker_lock(folder: Path) -> int:
    """Tells later batches that a worker is alive, until the descriptor is closed or its process ends."""
    descriptor = os.open(folder / ".workers.lock", os.O_CREAT | os.O_RDWR, 0o666)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


@contextmanager
def _await_workers(folder: Path) -> Iterator[None]:
    """Wait until no worker of an earlier batch lives: its output could be one of ours."""
    descriptor = os.open(folder / ".workers.lock", os.O_CREAT | os.O_RDWR, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sweep(outputs: Iterable[Path], cache: Path) -> None:
    """Removes what killed renders left beside their outputs and in the cache."""
    names: dict[Path, set[str]] = {}
    for output in outputs:
        names.setdefault(output.parent, set()).add(output.name)
    stray = [path for folder in names for path, name in left_over(folder) if name in names[folder]]
    for path in (*stray, *(path for path, _ in left_over(cache))):
        path.unlink(missing_ok=True)
