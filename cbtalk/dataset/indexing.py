"""The index of a set of clips, made by several processes; what is in it stays, whatever ends them."""

import logging
from collections.abc import Collection, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from tqdm import tqdm

from cbtalk.dataset.clip_set import ClipSet
from cbtalk.dataset.index import Index
from cbtalk.dataset.kinds import KINDS
from cbtalk.dataset.record import Record, Source
from cbtalk.dataset.shard import SUFFIX
from cbtalk.dataset.workers import Failed, done_by, processes_for
from cbtalk.errors import InputError
from cbtalk.media.clips import Clip, cache_name, decoded_before, find_clips, identity_of

logger = logging.getLogger(__name__)

# Frames decoded once and kept, 3 x size x size bytes each, or read from their files whenever they are needed.
Way = Literal["decoded", "files"]


class _Job(NamedTuple):
    """A file or folder of clips that is not in the index, or not complete."""

    key: str
    source: Source

    def __str__(self) -> str:
        """Its path, for messages."""
        return str(self.source.path)


def holds_shards(root: Path) -> bool:
    """Whether a folder holds shards, which are read as they are."""
    return any(True for _ in _shards(root))


def index_clips(
    root: Path, way: Way, size: int, cache: Path, without: Collection[Path] = (), *, processes: int | None = None
) -> ClipSet:
    """The clips below `root` in the order of their names, each of whose frames was read once, now or before.

    A clip that cannot be read is left out with a notice, and tried again the next time. Where `root` holds shards, the
    clips are theirs.

    Args:
        way: of reading the frames, if it is not from shards.
        size: side of the frames.
        cache: folder of the index, and of decoded frames.
        without: folders that are not entered.
        processes: that read new clips; by default one for each core, if there are many clips.

    Raises:
        InputError: `root` is no folder, or holds no clip that can be used.
        OutputError, SystemFailure: `cache` cannot be written.
    """
    sources = [Source("shard", "", path) for path in sorted(_shards(root))]
    if not sources:
        sources = [Source(_kind(way, clip), clip.name, clip.path) for clip in find_clips(root, without)]
    with Index.opened(cache) as index:
        keys = [_key(source, size) for source in sources]
        jobs = {  # by keys: two links may lead to one file
            key: _Job(key, source)
            for key, source in zip(keys, sources, strict=True)
            if key and not _is_known(index, key, source, cache)
        }
        _survey(index, list(jobs.values()), size, cache, processes or processes_for(len(jobs)), f"reading {root}")
        return _listed(index, sources, keys, size, cache, root)


def _shards(root: Path) -> Iterator[Path]:
    return (path for path in root.glob(f"*{SUFFIX}") if path.is_file() and not path.name.startswith("."))


def _kind(way: Way, clip: Clip) -> str:
    if way == "decoded":
        return way
    return "images" if clip.path.is_dir() else "video"


def _key(source: Source, size: int) -> str:
    """Changes when the files of a source do; empty where they cannot be looked at."""
    try:
        return f"{source.kind} {cache_name(Clip(source.name, source.path.resolve(), ''), size)}"
    except OSError as error:
        logger.warning("left out: %s: %s", source.path, error.strerror)
        return ""


def _is_known(index: Index, key: str, source: Source, cache: Path) -> bool:
    if not index.clips(key):
        return False
    return source.kind != "decoded" or decoded_before(cache / key.rpartition(" ")[2]) is not None


def _survey(index: Index, jobs: list[_Job], size: int, cache: Path, processes: int, title: str) -> None:
    with (
        tqdm(total=len(jobs), desc=title, unit="clip", leave=False, disable=None if jobs else True) as bar,
        closing(done_by(partial(_surveyed, size=size, cache=cache), jobs, processes)) as results,
    ):
        for job, found in results:
            if isinstance(found, Failed):
                logger.warning("left out: %s", found.reason)
            else:
                index.put(job.key, job.source, found)
            bar.update()


def _surveyed(job: _Job, *, size: int, cache: Path) -> list[Record]:
    try:
        return KINDS[job.source.kind].survey(job.source.path, size, cache)
    except OSError as error:
        raise InputError(f"{job.source.path}: cannot be read: {error.strerror}") from error


def _listed(index: Index, sources: list[Source], keys: list[str], size: int, cache: Path, root: Path) -> ClipSet:
    found = [
        (entry.name or source.name, entry.row, entry.length, entry.change)
        for key, source in zip(keys, sources, strict=True)
        for entry in index.clips(key)
    ]
    if not found:
        raise InputError(f"{root}: no clip in it that can be used")
    names, rows, lengths, changes = zip(*sorted(found), strict=True)
    people: dict[str, int] = {}
    return ClipSet(
        cache,
        size,
        rows=np.array(rows, dtype=np.int64),
        lengths=np.array(lengths, dtype=np.int32),
        changes=np.array(changes, dtype=np.float64),
        people=np.array([people.setdefault(identity_of(name), len(people)) for name in names], dtype=np.int32),
    )
