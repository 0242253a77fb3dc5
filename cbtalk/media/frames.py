"""Frames of a video as its reader gives them, and facts about the whole."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class VideoInfo:
    """Facts that are known before the frames are read.

    width, height: pixels of the upright frames. average_rate: frames per second. time_base: seconds per tick of the
    time stamps. frames, duration (seconds): as the file claims, None where it does not. warnings: what is wrong with
    the file and does not keep it from being read, one line each.
    """

    width: int
    height: int
    average_rate: Fraction
    time_base: Fraction
    frames: int | None
    duration: float | None
    has_audio: bool
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Frame:
    """One image: image (H, W, 3) uint8 RGB, upright; shown from pts * time_base seconds on; index counts from 0.

    duration: for how many ticks it is shown, of which only the last frame's is news.
    """

    image: NDArray[np.uint8]
    pts: int
    time_base: Fraction
    index: int
    duration: int


@dataclass(frozen=True)
class BadFrame:
    """An image that cannot be decoded, in its place among the frames.

    reason completes the sentence "the frame ...". pts is None where the file does not tell it.
    """

    index: int
    reason: str
    pts: int | None = None
