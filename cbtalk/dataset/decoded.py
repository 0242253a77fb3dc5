"""Clips whose frames are decoded once and kept in the cache as they are."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cbtalk.dataset.record import Record
from cbtalk.errors import InputError
from cbtalk.media.clips import Clip, decode_clip, map_frames, mean_change


class Decoded:
    """As `Kind`; the places are the name of the .npy file of a clip."""

    def survey(self, path: Path, size: int, cache: Path) -> list[Record]:
        """As `Kind.survey`."""
        frames = decode_clip(Clip("", path.resolve(), ""), size, cache)  # as the index has it: links share it
        kept = Path(str(frames.filename)).name
        return [Record("", len(frames), mean_change(frames), kept.encode())]

    def read(self, path: Path, places: bytes, size: int, cache: Path, frames: Sequence[int]) -> np.ndarray:
        """As `Kind.read`."""
        try:
            kept = map_frames(cache / places.decode())
            return kept[np.asarray(frames)]
        except (OSError, ValueError, EOFError, IndexError) as error:
            raise InputError(f"{cache / places.decode()}: decoded frames are gone or damaged; start again") from error
