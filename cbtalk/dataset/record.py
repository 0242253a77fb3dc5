"""Clips as the index has them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from cbtalk.media.clips import change, compared


class Record(NamedTuple):
    """A clip. name: within its file, for files of many clips. change: `mean_change`. places: of its frames."""

    name: str
    length: int
    change: float
    places: bytes


class Source(NamedTuple):
    """A file or folder of clips. kind: of `kinds`. name: of the clip in it, unless it holds many."""

    kind: str
    name: str
    path: Path


class Kind(Protocol):
    """A way of keeping clips."""

    def survey(self, path: Path, size: int, cache: Path) -> list[Record]:
        """The clips of a file or folder, for which every frame is read once. Raises InputError where there is none."""

    def read(self, path: Path, places: bytes, size: int, cache: Path, frames: Sequence[int]) -> np.ndarray:
        """Frames of a clip, each as `clip_frames` has it, that cannot be decoded left out: uint8 (N, size, size, 3).

        Raises InputError where the file is not what it was.
        """


class Measure:
    """Counts the frames of a clip, and how much it moves, as they come one after another."""

    def __init__(self) -> None:
        self.first: np.ndarray | None = None
        self.changes: list[float] = []

    def add(self, frame: np.ndarray) -> None:
        """Take a frame, uint8 (H, W, 3)."""
        self.first = frame if self.first is None else self.first
        self.changes.append(change(self.first, frame))

    def record(self, name: str, places: bytes) -> Record:
        """The record that came of it; there must be a frame."""
        length = len(self.changes)
        moved = float(np.mean([self.changes[number] for number in compared(length)]))
        return Record(name, length, moved, places)
