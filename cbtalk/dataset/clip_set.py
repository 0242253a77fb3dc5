"""A set of clips as training uses it: numbers in memory, frames read when they are asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cbtalk.dataset.index import place_of
from cbtalk.dataset.kinds import KINDS

_FRAMES_AT_ONCE = 64


@dataclass(frozen=True)
class ClipSet:
    """Clips of an index, numbered from 0. It may be pickled, and used in forked processes.

    cache: folder of the index. size: side of the frames. Of each clip: its row there, its number of frames, how much it
    moves (`mean_change`), and the number of the person in it.
    """

    cache: Path
    size: int
    rows: np.ndarray
    lengths: np.ndarray
    changes: np.ndarray
    people: np.ndarray

    def __len__(self) -> int:
        """The number of clips."""
        return len(self.rows)

    def __getitem__(self, number: int) -> "ClipFrames":
        """The frames of a clip."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        return ClipFrames(self, number)

    def __iter__(self) -> Iterator["ClipFrames"]:
        """The frames of each clip."""
        return (ClipFrames(self, number) for number in range(len(self)))

    def read(self, number: int, frames: Sequence[int]) -> np.ndarray:
        """Frames of a clip, uint8 (N, size, size, 3). Raises InputError where they are not there any more."""
        place = place_of(self.cache, int(self.rows[number]))
        return KINDS[place.kind].read(place.path, place.places, self.size, self.cache, frames)

    def title(self, number: int) -> str:
        """The name of a clip in messages."""
        place = place_of(self.cache, int(self.rows[number]))
        return f"{place.path}: {place.name}" if place.name else str(place.path)

    def own_files(self) -> list[Path]:
        """For each clip a file of the cache folder, beside which is kept what is found out about its frames."""
        return [self.cache / place_of(self.cache, row).own_name for row in self.rows.tolist()]

    def taken(self, which: np.ndarray) -> "ClipSet":
        """The clips of these numbers, or those for which it is true."""
        return ClipSet(
            self.cache, self.size, self.rows[which], self.lengths[which], self.changes[which], self.people[which]
        )


@dataclass(frozen=True)
class ClipFrames:
    """The frames of a clip, read when they are asked for, a few at once."""

    clips: ClipSet
    number: int

    def __len__(self) -> int:
        """The number of frames."""
        return int(self.clips.lengths[self.number])

    def __getitem__(self, frames: np.ndarray) -> np.ndarray:
        """Frames by their numbers, uint8 (N, size, size, 3)."""
        return self.clips.read(self.number, [int(frame) for frame in frames])

    def __iter__(self) -> Iterator[np.ndarray]:
        """Each frame, uint8 (size, size, 3)."""
        for first in range(0, len(self), _FRAMES_AT_ONCE):
            yield from self[np.arange(first, min(first + _FRAMES_AT_ONCE, len(self)))]
