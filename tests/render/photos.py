"""A photo with the heads of a person in it, where they are wanted."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

data = pytest.importorskip("skimage.data", reason="scikit-image, which carries the portrait, is not installed")
HEAD = (84, 0, 280)  # the astronaut's: left, top, side


def scene(*places: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A photo of coffee with the astronaut's head in squares (left, top, side)."""
    photo = Image.fromarray(data.coffee()).resize((960, 540))
    left, top, side = HEAD
    head = Image.fromarray(data.astronaut()[top : top + side, left : left + side])
    for x, y, size in places:
        photo.paste(head.resize((size, size), Image.Resampling.LANCZOS), (x, y))
    return np.array(photo)
