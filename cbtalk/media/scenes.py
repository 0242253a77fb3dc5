"""Scene cuts: the frames of a video at which another shot begins."""

from collections import deque
from statistics import median

import numpy as np
from numpy.typing import NDArray

_GRID = 24  # cells across and down, in which colours are averaged
_SMALLEST = 0.045  # of a full change from black to white that a cut makes at least
_TIMES = 4.0  # the usual change, which a cut exceeds
_AT_FIRST = 0.02  # the usual change before any was seen
_REMEMBERED = 12  # changes between frames that tell the usual one


class SceneCuts:
    """A detector of hard cuts that sees a video frame by frame, in constant memory.

    A cut changes the image everywhere, and much more than the frames before it changed it: a pan, a walk or a hand
    before the camera is none, nor is a fade.
    """

    def __init__(self) -> None:
        self._last: NDArray[np.float32] | None = None
        self._changes: deque[float] = deque([_AT_FIRST], maxlen=_REMEMBERED)

    def __call__(self, image: NDArray[np.uint8]) -> bool:
        """Whether a new scene begins with this frame (H, W, 3) uint8 RGB; False for the first."""
        cells = mean_colours(image)
        last, self._last = self._last, cells
        if last is None:
            return False
        now = change(last, cells)
        usual = median(self._changes)
        self._changes.append(now)
        return now > max(_SMALLEST, _TIMES * usual)


def mean_colours(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean colours on a grid, 0 to 1: (_GRID, _GRID, 3). Every few pixels are read, which is enough for a mean."""
    height, width = image.shape[:2]
    rows = (np.arange(_GRID * 4) + 0.5) * height // (_GRID * 4)
    columns = (np.arange(_GRID * 4) + 0.5) * width // (_GRID * 4)
    picked = image[rows.astype(int)[:, None], columns.astype(int)[None, :]]
    return picked.reshape(_GRID, 4, _GRID, 4, 3).mean(axis=(1, 3), dtype=np.float32) / np.float32(255)


def change(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    """Median change of colour over the cells: what moves in a part of the image does not count."""
    return float(np.median(np.abs(after - before).mean(axis=2)))
