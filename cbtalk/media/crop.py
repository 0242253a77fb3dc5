"""Square crops: where they lie, and the image inside resized."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cbtalk.errors import InputError
from cbtalk.options.places import CropBox as CropBox

# Pillow's filter shrinks by this much at least; the rest is done before by averaging whole blocks, twice as fast from
# 1080 lines to 256 and hardly visible.
_REDUCING_GAP = 2.0


def center_square(width: int, height: int) -> CropBox:
    """The largest square in the middle of an image of width x height pixels."""
    size = min(width, height)
    return CropBox((width - size) // 2, (height - size) // 2, size)


def check_fits(box: CropBox, width: int, height: int) -> None:
    """Raise InputError where a box has nothing in common with an image, or more than twice its longer side."""
    if not (-box.size < box.x < width and -box.size < box.y < height and 0 < box.size <= 2 * max(width, height)):
        raise InputError(f"crop {box.x},{box.y},{box.size}: does not fit the image of {width} x {height} pixels")


def crop_resize(image: NDArray[np.uint8], box: CropBox, size: int) -> NDArray[np.uint8]:
    """Cut `box` out of an image (H, W, 3) uint8 and resize it with antialiasing (bicubic) to (size, size, 3) uint8.

    Where the box reaches out of the image, the image's edge pixels are repeated. Raises InputError where the box
    has nothing in common with the image, or more than twice the image's longer side.
    """
    height, width = image.shape[:2]
    check_fits(box, width, height)
    if box.x >= 0 and box.y >= 0 and box.x + box.size <= width and box.y + box.size <= height:
        square = image[box.y : box.y + box.size, box.x : box.x + box.size]
    else:
        rows = np.arange(box.y, box.y + box.size).clip(0, height - 1)
        columns = np.arange(box.x, box.x + box.size).clip(0, width - 1)
        square = image[rows[:, None], columns[None, :]]
    if box.size == size:
        return np.ascontiguousarray(square)
    resized = Image.fromarray(square).resize((size, size), Image.Resampling.BICUBIC, reducing_gap=_REDUCING_GAP)
    return np.array(resized)  # a copy, for Pillow's own memory is read-only
