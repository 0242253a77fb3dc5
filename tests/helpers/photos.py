"""Photos with the head of a person in them, where they are wanted: those that scikit-image carries."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

data = pytest.importorskip("skimage.data", reason="scikit-image, which carries the portrait, is not installed")
HEAD = (84, 0, 280)  # the astronaut's: left, top, side


def head(size: int = HEAD[2]) -> Image.Image:
    """The astronaut's head, a square of this side."""
    left, top, side = HEAD
    square = Image.fromarray(data.astronaut()[top : top + side, left : left + side])
    return square if size == side else square.resize((size, size), Image.Resampling.LANCZOS)


def coffee(width: int, height: int) -> Image.Image:
    """A photo without people."""
    return Image.fromarray(data.coffee()).resize((width, height))


def scene(*places: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A photo of coffee with the astronaut's head in squares (left, top, side)."""
    photo = coffee(960, 540)
    for x, y, size in places:
        photo.paste(head(size), (x, y))
    return np.array(photo)
