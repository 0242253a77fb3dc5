"""Places in images as words say them: the square to cut out, and which of several faces is meant."""

import re
from typing import Literal, NamedTuple

from cbtalk.errors import InputError


class CropBox(NamedTuple):
    """A square of `size` x `size` pixels whose top left pixel is (x, y); it may reach out of the image."""

    x: int
    y: int
    size: int


# A square, or the largest one in the middle.
Crop = CropBox | Literal["centre"]

# "largest"; a number, counted from 1 from left to right; or a point (x, y) in pixels, for the face nearest to it.
FaceChoice = Literal["largest"] | int | tuple[float, float]


def parse_crop(text: str) -> Crop:
    """Read "centre", or "x,y,size" (whole pixels, size at least 1). Raises InputError where it is something else."""
    if text in ("centre", "center"):
        return "centre"
    numbers = re.fullmatch(r"\s*(-?\d{1,6})\s*,\s*(-?\d{1,6})\s*,\s*(\d{1,6})\s*", text, re.ASCII)
    if numbers is None or int(numbers[3]) == 0:
        raise InputError(f"crop {text!r}: must be centre, or x,y,size in whole pixels, for example 100,40,512")
    return CropBox(int(numbers[1]), int(numbers[2]), int(numbers[3]))


def parse_choice(text: str) -> FaceChoice:
    """Reads "largest", a number from 1 on, or "x,y". Raises InputError where it is something else."""
    if text == "largest":
        return "largest"
    if re.fullmatch(r"[1-9]\d{0,3}", text, re.ASCII):
        return int(text)
    point = re.fullmatch(r"\s*(\d{1,6})\s*,\s*(\d{1,6})\s*", text, re.ASCII)
    if point is None:
        raise InputError(f"face {text!r}: must be largest, a number from 1 on (from left to right), or x,y in pixels")
    return float(point[1]), float(point[2])
