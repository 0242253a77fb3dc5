"""The jobs of an evaluation: what is animated by which clip, and what identifies a job that was done before."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cbtalk.digest import combined
from cbtalk.errors import InputError
from cbtalk.evaluate.judge import Frame, frame_of
from cbtalk.media.clips import Clip, cache_name, square
from cbtalk.media.images import read_image
from cbtalk.media.kinds import IMAGE_SUFFIXES


class Source(NamedTuple):
    """An image to animate: a file, or a frame of a clip by its number from 0."""

    name: str
    path: Path
    clip: Clip | None = None
    number: int = 0

    def read(self, size: int) -> Frame:
        """The centre square, uint8 (size, size, 3). Raises InputError where it cannot be read."""
        return square(read_image(self.path), size) if self.clip is None else frame_of(self.clip, self.number, size)

    def stamp(self) -> str:
        """Text that changes when the image does."""
        if self.clip is not None:
            return f"{self.number} {cache_name(self.clip, 0)}"
        status = self.path.stat()
        return f"{os.fspath(self.path.resolve())} {status.st_size} {status.st_mtime_ns}"


class Pair(NamedTuple):
    """A source, and the clip that drives it from its frame `anchor` on, whose pose counts as the source's."""

    source: Source
    clip: Clip
    anchor: int = 0

    @property
    def driving(self) -> str:
        """The clip's name, and the anchor if it is not the first frame."""
        return f"{self.clip.name} @{self.anchor}" if self.anchor else self.clip.name

    @property
    def title(self) -> str:
        """Name of the pair."""
        return f"{self.source.name} by {self.driving}"


@dataclass(frozen=True)
class Job:
    """A clip that is reconstructed from its first frame, or, where there are pairs, drives their sources.

    key: the same for the same work. shown: the titles of what is shown: the clip's name, or those of some pairs.
    """

    key: str
    clip: Clip
    pairs: tuple[Pair, ...] = ()
    shown: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """Name of the job, for messages."""
        if len(self.pairs) == 1:
            return self.pairs[0].title
        return f"portraits by {self.clip.name}" if self.pairs else self.clip.name


def reconstructions(clips: Sequence[Clip], portraits: Sequence[Source], options: str) -> list[Job]:
    """Each clip by its own first frame; then each clip drives all portraits, each of which is shown with one clip."""
    jobs = [Job(_key(options, clip, ()), clip, (), frozenset([clip.name])) for clip in clips]
    for number, clip in enumerate(clips if portraits else ()):
        pairs = tuple(Pair(portrait, clip) for portrait in portraits)
        shown = frozenset(pair.title for place, pair in enumerate(pairs) if place % len(clips) == number)
        jobs.append(Job(_key(options, clip, pairs), clip, pairs, shown))
    return jobs


def crossings(pairs: Sequence[Pair], options: str) -> list[Job]:
    """A job for each pair."""
    return [Job(_key(options, pair.clip, [pair]), pair.clip, (pair,), frozenset([pair.title])) for pair in pairs]


def _key(options: str, clip: Clip, pairs: Sequence[Pair]) -> str:
    sources = (f"{pair.anchor} {pair.source.name} {pair.source.stamp()}" for pair in pairs)
    return combined(options, clip.name, cache_name(clip, 0), *sources)


def find_portraits(paths: Sequence[Path]) -> list[Source]:
    """Images, and those of folders, named as their files.

    Raises:
        InputError: there is no image, or two have the same name.
    """
    files = []
    for path in paths:
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        found = [file for file in inside if file == path or file.suffix.lower() in IMAGE_SUFFIXES]
        if not found:
            raise InputError(f"{path}: no image in it")
        files += found
    names = [file.name for file in files]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{name}: two portraits of this name; rename one")
    return [Source(file.name, file) for file in files]


def file_names(titles: Sequence[str]) -> Mapping[str, str]:
    """A file name without suffix for each title: no two have the same, on any file system."""
    plain = {title: title.replace("/", "_") for title in titles}
    counts = Counter(name.casefold() for name in plain.values())
    return {
        title: f"{name}.{combined(title)[:8]}" if counts[name.casefold()] > 1 else name for title, name in plain.items()
    }
