"""Sharpness and motion of a clip, measured on the face region of its images at one scale whatever their size.

How the figures lie for clips that are good for training, and for spoiled ones: docs/decisions/prepare.md.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cbtalk.faces.framing import BOX_CENTRE, BOX_HEIGHT
from cbtalk.media.clips import mean_change

_SHARPNESS_SIDES = (128, 32)  # px of the square: fine and coarse detail
_MOTION_SIDE = 64  # px of the square in which motion is looked for: noise is averaged out
_LEAST_DETAIL = 4.0  # levels of 255 of coarse detail: sharp faces have more, heavy blur leaves but rounding
_BOX_WIDTH = 0.5  # of the face region, in sides of the square


class Quality:
    """Sharpness and motion of a clip, from a few of its square images per second."""

    def __init__(self) -> None:
        self._sharpness: list[float] = []
        self._faces: list[NDArray[np.uint8]] = []

    def add(self, image: NDArray[np.uint8]) -> None:
        """Looks at an image (S, S, 3) uint8 RGB, framed as training clips are."""
        grey = Image.fromarray(image).convert("L")
        fine, coarse = (_detail(_face_region(grey, side)) for side in _SHARPNESS_SIDES)
        self._sharpness.append(fine / max(coarse, _LEAST_DETAIL))
        self._faces.append(_face_region(grey, _MOTION_SIDE))

    @property
    def sharpness(self) -> float:
        """The face's fine detail as a share of its coarse detail: a median over the images.

        Blur takes the fine detail first; a smooth or a bearded face has little or much of both.
        """
        return float(np.median(self._sharpness)) if self._sharpness else 0.0

    @property
    def motion(self) -> float:
        """The difference of the face from the first image, in levels of 255 (`mean_change`)."""
        return mean_change(np.stack(self._faces)) if self._faces else 0.0


def _face_region(grey: Image.Image, side: int) -> NDArray[np.uint8]:
    """The face's part of a square image, of the scale at which the square has this side."""
    x, y = BOX_CENTRE
    left, top = round((x - _BOX_WIDTH / 2) * side), round((y - BOX_HEIGHT / 2) * side)
    small = grey.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return np.asarray(small)[top : top + round(BOX_HEIGHT * side), left : left + round(_BOX_WIDTH * side)]


def _detail(region: NDArray[np.uint8]) -> float:
    """Standard deviation of what a region (h, w) loses when it is halved and doubled again, in levels of 255."""
    image = Image.fromarray(region)
    halved = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    residual = region.astype(np.float32) - np.asarray(halved.resize(image.size, Image.Resampling.BICUBIC))
    return float(residual.std())
