"""The index of clips, an SQLite file of the cache folder: what is known of each, and where its frames are."""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache as kept
from logging import getLogger
from pathlib import Path
from typing import NamedTuple, Self

from cbtalk.dataset.record import Record, Source
from cbtalk.errors import InputError, OutputError, SystemFailure

logger = getLogger(__name__)

FILE = "clips.sqlite"
_SECONDS_TO_WAIT = 60.0  # for another run that is writing
_TABLE = """
create table if not exists clips (
    id integer primary key, key text, number integer, kind text, path blob, name blob, length integer, change real,
    places blob, unique (key, number)
)
"""


class Entry(NamedTuple):
    """A clip in the index; as `Record`, with the number of its row."""

    row: int
    name: str
    length: int
    change: float


class Place(NamedTuple):
    """The place of a clip. own_name: no other clip of the cache folder has it."""

    kind: str
    path: Path
    name: str
    places: bytes
    own_name: str


class Index:
    """The index of a cache folder, open for changes.

    Each file or folder of clips has a key that changes when it does, so that what is in the index stays right. Names of
    files are kept as bytes, for they may be no text.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    @contextmanager
    def opened(cls, cache: Path) -> Iterator[Self]:
        """Several runs may have the index of one folder open. One that is damaged is told of, and made anew.

        Raises OutputError where it cannot be written, SystemFailure where the disk is full.
        """
        path = cache / FILE
        try:
            cache.mkdir(parents=True, exist_ok=True)
            try:
                connection = _connected(path)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                logger.warning("%s: is damaged and made anew (%s)", path, error)
                path.unlink()
                connection = _connected(path)
            with closing(connection):
                yield cls(connection)
        except OSError as error:
            raise OutputError(f"{cache}: cannot be written: {error.strerror}; choose another data.cache") from error
        except sqlite3.Error as error:
            if "full" in str(error):
                raise SystemFailure(f"{path}: cannot be written: {error}; free space") from error
            raise OutputError(f"{path}: cannot be written: {error}; choose another data.cache") from error

    def clips(self, key: str) -> list[Entry]:
        """The clips of a file or folder, none before it was put."""
        rows = self._connection.execute(
            "select id, name, length, change from clips where key = ? order by number", [key]
        )
        return [Entry(row, os.fsdecode(name), length, change) for row, name, length, change in rows]

    def put(self, key: str, source: Source, records: Sequence[Record]) -> None:
        """Put down all clips of a file or folder at once."""
        self._connection.execute("begin immediate")
        self._connection.executemany(
            "insert into clips (key, number, kind, path, name, length, change, places) values (?, ?, ?, ?, ?, ?, ?, ?) "
            "on conflict (key, number) do update set length = excluded.length, change = excluded.change, "
            "places = excluded.places",
            [
                (key, number, source.kind, os.fsencode(source.path.resolve()), os.fsencode(name), *rest)
                for number, (name, *rest) in enumerate(records)
            ],
        )
        self._connection.execute("commit")


def place_of(cache: Path, row: int) -> Place:
    """The place of the clip of a row. Raises InputError where the index is gone or damaged."""
    path = cache / FILE
    try:
        query = "select kind, path, name, places, key, number from clips where id = ?"
        kind, file, name, places, key, number = _read_only(path, os.getpid()).execute(query, [row]).fetchone()
    except (sqlite3.Error, TypeError) as error:
        raise InputError(f"{path}: the index of clips is gone or damaged; start again") from error
    own_name = Path(key.rpartition(" ")[2])
    if kind == "shard":
        own_name = own_name.with_stem(f"{own_name.stem}_{number}")
    return Place(kind, Path(os.fsdecode(file)), os.fsdecode(name), places, own_name.name)


@kept
def _read_only(path: Path, _process: int) -> sqlite3.Connection:
    """One connection for each process, because a forked one must not use that of its parent."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_SECONDS_TO_WAIT)


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_SECONDS_TO_WAIT, isolation_level=None)
    try:
        connection.execute("pragma synchronous = off")  # what a power cut damages is made anew
        (found,) = connection.execute("pragma quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        connection.execute(_TABLE)
    except BaseException:
        connection.close()
        raise
    return connection
