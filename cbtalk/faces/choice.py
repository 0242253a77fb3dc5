"""The choice among several faces: the largest, one by its number, or the one at a point."""

from collections.abc import Sequence

from cbtalk.errors import InputError
from cbtalk.faces.detector import Face
from cbtalk.options.places import FaceChoice


def from_left_to_right(faces: Sequence[Face]) -> list[Face]:
    """The faces in the order of their numbers."""
    return sorted(faces, key=lambda face: float(face.box[0] + face.box[2]))


def no_such_face(number: int, count: int, where: str) -> str:
    """The message for a face's number that is too large for an image or a video."""
    there = f"only {count} faces are found" if count > 1 else "only 1 face is found"
    return f"face {number}: {there} in the {where}; faces are counted from left to right, from 1"


def choose(faces: Sequence[Face], choice: FaceChoice) -> Face:
    """The face of at least one that is asked for. Raises InputError for a number that none has."""
    if choice == "largest":
        return max(faces, key=lambda face: face.area)
    if isinstance(choice, int):
        if choice > len(faces):
            raise InputError(no_such_face(choice, len(faces), "image"))
        return from_left_to_right(faces)[choice - 1]
    x, y = choice
    return min(faces, key=lambda face: float(((face.box[:2] + face.box[2:]) / 2 - face.box.new_tensor((x, y))).norm()))
