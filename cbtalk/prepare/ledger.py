"""The ledger of an output folder, by which a run that was killed at any moment goes on where it was."""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple, Self

from cbtalk.errors import OutputError
from cbtalk.faces import Square
from cbtalk.file_names import printable
from cbtalk.prepare.stretch import Reason, Stretch

FILE = ".prepare.sqlite"
_TABLES = """
create table if not exists raw (folder blob);
create table if not exists videos (name blob primary key, fingerprint text, state text, note text);
create table if not exists stretches (
    video blob references videos (name) on delete cascade, number integer, finished integer, record text,
    primary key (video, number)
);
"""


class Entry(NamedTuple):
    """A video that was begun. state: planned, done or failed; note: why it failed, or what is wrong with it."""

    name: str
    fingerprint: str
    state: str
    note: str


class Ledger:
    """A table of the raw videos and one of their stretches, in a file of the output folder.

    Names of files are kept as bytes, for they may be no text. Each method that writes is one transaction.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    @contextmanager
    def opened(cls, output: Path, raw: Path) -> Iterator[Self]:
        """The ledger of a folder, which nobody else can open in the meantime.

        Raises OutputError where another run works in the folder, it holds the clips of another raw folder, or it cannot
        be written.
        """
        connection = sqlite3.connect(output / FILE, timeout=0, isolation_level=None)
        try:
            try:
                connection.execute("pragma locking_mode = exclusive")
                connection.execute("pragma foreign_keys = on")
                connection.execute("begin exclusive")
                for table in filter(str.strip, _TABLES.split(";")):
                    connection.execute(table)
                ledger = cls(connection)
                ledger._settle_raw(output, raw.resolve())
                connection.execute("commit")
            except sqlite3.OperationalError as error:
                if "locked" in str(error):
                    raise OutputError(f"{output}: another cbtalk prepare works in it; wait until it ends") from error
                raise OutputError(f"{output / FILE}: cannot be written: {error}; choose another folder") from error
            except sqlite3.DatabaseError as error:
                raise OutputError(f"{output / FILE}: is damaged; choose another folder or remove it") from error
            yield ledger
        finally:
            connection.close()

    def _settle_raw(self, output: Path, raw: Path) -> None:
        """A raw folder may be moved; two of them would overwrite each other's clips."""
        known = [Path(os.fsdecode(folder)) for (folder,) in self._connection.execute("select folder from raw")]
        if known and known[0] != raw and known[0].exists():
            raise OutputError(f"{output}: holds the clips of {known[0]}; choose another folder for those of {raw}")
        self._connection.execute("delete from raw")
        self._connection.execute("insert into raw values (?)", [os.fsencode(raw)])

    def entries(self) -> list[Entry]:
        """All videos that were begun, in the order of their names."""
        rows = self._connection.execute("select name, fingerprint, state, note from videos order by name")
        return [Entry(os.fsdecode(name), *rest) for name, *rest in rows]

    def stretches(self, video: str) -> list[tuple[int, Stretch, bool]]:
        """The stretches of a video: number, record, and whether nothing is left to do for it."""
        rows = self._connection.execute(
            "select number, record, finished from stretches where video = ? order by number", [os.fsencode(video)]
        )
        return [(number, _read(record), bool(finished)) for number, record, finished in rows]

    def plan(self, video: str, fingerprint: str, stretches: tuple[Stretch, ...]) -> None:
        """Put down what a video gives, in place of what was known of it; those with names are still to be cut."""
        with self._transaction():
            self._begin(video, fingerprint, "planned", "")
            self._connection.executemany(
                "insert into stretches values (?, ?, ?, ?)",
                [
                    (os.fsencode(video), number, stretch.name is None, _written(stretch))
                    for number, stretch in enumerate(stretches)
                ],
            )

    def finish(self, video: str, number: int, stretch: Stretch) -> None:
        """Put down that a stretch is cut, or left out."""
        self._connection.execute(
            "update stretches set finished = 1, record = ? where video = ? and number = ?",
            [_written(stretch), os.fsencode(video), number],
        )

    def reopen(self, video: str, number: int) -> None:
        """Put down that a stretch is to be cut again."""
        with self._transaction():
            key = os.fsencode(video)
            self._connection.execute("update stretches set finished = 0 where video = ? and number = ?", [key, number])
            self._connection.execute("update videos set state = 'planned' where name = ?", [key])

    def done(self, video: str, warnings: tuple[str, ...]) -> None:
        """Put down that nothing is left to do for a video."""
        note = "; ".join(warnings)
        self._connection.execute(
            "update videos set state = 'done', note = ? where name = ?", [printable(note), os.fsencode(video)]
        )

    def fail(self, video: str, fingerprint: str, reason: str) -> None:
        """Put down that a video cannot be read; clips that it gave before are kept."""
        with self._transaction():
            key = os.fsencode(video)
            if self._connection.execute("select 1 from videos where name = ?", [key]).fetchone() is None:
                self._begin(video, fingerprint, "failed", reason)
            self._connection.execute(
                "update videos set state = 'failed', note = ? where name = ?", [printable(reason), key]
            )

    def forget(self, video: str) -> None:
        """Put down nothing of a video."""
        self._connection.execute("delete from videos where name = ?", [os.fsencode(video)])

    def _begin(self, video: str, fingerprint: str, state: str, note: str) -> None:
        self._connection.execute("delete from videos where name = ?", [os.fsencode(video)])
        self._connection.execute(
            "insert into videos values (?, ?, ?, ?)", [os.fsencode(video), fingerprint, state, printable(note)]
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("begin")
        try:
            yield
        except BaseException:
            self._connection.execute("rollback")
            raise
        self._connection.execute("commit")


def _written(stretch: Stretch) -> str:
    return json.dumps(asdict(stretch))


def _read(record: str) -> Stretch:
    values = json.loads(record)
    if values["square"] is not None:
        values["square"] = Square(*values["square"])
    if values["reason"] is not None:
        values["reason"] = Reason(values["reason"])
    return Stretch(**values)
