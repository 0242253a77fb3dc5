"""Clips that are folders of frames, read when they are needed."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cbtalk.dataset.record import Measure, Record
from cbtalk.errors import InputError
from cbtalk.media.clips import Clip, frame_files, read_frame, square
from cbtalk.media.images import read_image


class Images:
    """As `Kind`; the places are the names of the files, with zeros between them."""

    def survey(self, path: Path, size: int, cache: Path) -> list[Record]:
        """As `Kind.survey`."""
        measure, names = Measure(), []
        for file in frame_files(Clip("", path, "")):
            if (frame := read_frame(file, size)) is not None:
                measure.add(frame)
                names.append(os.fsencode(file.name))
        if not names:
            raise InputError(f"{path}: no frame in it")
        return [measure.record("", b"\0".join(names))]

    def read(self, path: Path, places: bytes, size: int, cache: Path, frames: Sequence[int]) -> np.ndarray:
        """As `Kind.read`."""
        names = places.split(b"\0")
        return np.stack([square(read_image(path / os.fsdecode(names[number])), size) for number in frames])
