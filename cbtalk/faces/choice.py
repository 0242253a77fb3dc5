"""The choice among several faces: the largest, one by its number, or the one at a point."""

import re
from collections.abc import Sequence
from typing import Literal

from cbtalk.errors import InputError
from cbtalk.faces.detector import Face

# "largest"; a number, counted from 1 from left to right; or a point (x, y) in pixels, for the face nearest to it.
FaceChoice = Literal["largest"] | int | tuple[float, float]


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


def from_left_to_right(faces: Sequence[Face]) -> list[Face]:
    """The faces in the order of their numbers."""
    return sorted(faces, key=lambda face: float(face.box[0] + face.box[2]))


def choose(faces: Sequence[Face], choice: FaceChoice) -> Face:
    """The face of at least one that is asked for. Raises InputError for a number that none has."""
    if choice == "largest":
        return max(faces, key=lambda face: face.area)
    if isinstance(choice, int):
        if choice > len(faces):
            raise InputError(f"face {choice}: there are {len(faces)}, counted from left to right")
        return from_left_to_right(faces)[choice - 1]
    x, y = choice
    return min(faces, key=lambda face: float(((face.box[:2] + face.box[2:]) / 2 - face.box.new_tensor((x, y))).norm()))
