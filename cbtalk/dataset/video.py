"""Clips that are video files, decoded when they are needed: from a key frame, where that gives the same frames."""

import contextlib
import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from cbtalk.dataset.record import Measure, Record
from cbtalk.errors import InputError
from cbtalk.media.clips import square
from cbtalk.media.frames import Frame
from cbtalk.media.span import key_frames
from cbtalk.media.video_reader import open_video

logger = logging.getLogger(__name__)


class Video:
    """As `Kind`; the places are int64 (2, T): each frame's pts, and the packet from which it is to be decoded."""

    def survey(self, path: Path, size: int, cache: Path) -> list[Record]:
        """As `Kind.survey`."""
        measure, pts, bad = Measure(), [], 0
        with open_video(path) as reader:
            for warning in reader.info.warnings:
                logger.warning("%s", warning)
            for frame in reader:
                if isinstance(frame, Frame):
                    last = square(frame.image, size)
                    measure.add(last)
                    pts.append(frame.pts)
                else:
                    bad += 1
            uniform = reader.uniform
        if bad:
            logger.warning("%s: %d of its frames cannot be decoded", path, bad)
        times = np.array(pts, dtype=np.int64)
        starts = _starts(path, times) if uniform else np.zeros_like(times)
        if starts.any():  # the rules say that its frames are the same from there; the last of them shows it
            again = _decoded(path, int(starts[-1]), [len(times) - 1], times, size).get(len(times) - 1)
            if again is None or not np.array_equal(again, last):
                starts[:] = 0
        return [measure.record("", np.stack([times, starts]).tobytes())]

    def read(self, path: Path, places: bytes, size: int, cache: Path, frames: Sequence[int]) -> np.ndarray:
        """As `Kind.read`."""
        times, starts = np.frombuffer(places, dtype=np.int64).reshape(2, -1)
        found: dict[int, np.ndarray] = {}
        for start in {int(starts[number]) for number in frames}:
            together = [number for number in frames if starts[number] == start]
            with contextlib.suppress(InputError):  # of a file that has changed, which tells it from its start on
                found |= _decoded(path, start, together, times, size)
        if missing := set(frames) - set(found):
            found |= _decoded(path, 0, missing, times, size)
        if missing := set(frames) - set(found):
            raise InputError(f"{path}: frame {min(missing)} is not there any more: the file has changed; start again")
        return np.stack([found[number] for number in frames])


def _starts(path: Path, times: np.ndarray) -> np.ndarray:
    """For each frame the packet of the last key frame but one before it, 0 where there are not as many.

    The last but one: frames beside a key frame may lean on what is in front of it.
    """
    keys = [(ticks, number) for number, ticks, _ in key_frames(path)]
    if keys != sorted(keys):
        return np.zeros_like(times)
    numbers = np.array([0, 0, *(number for _, number in keys)], dtype=np.int64)
    return numbers[np.searchsorted([ticks for ticks, _ in keys], times, side="right")]


def _decoded(path: Path, start: int, numbers: Collection[int], times: np.ndarray, size: int) -> dict[int, np.ndarray]:
    """Those frames by their numbers, decoded from a packet on; one that is not met again at its time is left out."""
    wanted = {int(times[number]): number for number in numbers}
    found: dict[int, np.ndarray] = {}
    with open_video(path, skip=start) as reader:
        for frame in reader:
            if isinstance(frame, Frame) and frame.pts in wanted:
                found[wanted[frame.pts]] = square(frame.image, size)
            if isinstance(frame, Frame) and frame.pts >= max(wanted):
                break
    return found
