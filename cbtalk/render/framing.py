"""The square of a source that the model sees: given, or found by its face."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cbtalk import ranges
from cbtalk.errors import InputError
from cbtalk.faces import Face, Square, choose, cut, find_faces, frame
from cbtalk.media.crop import center_square
from cbtalk.options.places import Crop
from cbtalk.render.driving import square
from cbtalk.render.options import RenderOptions
from cbtalk.render.report import Report

Place = Crop | Square  # in a source: a crop that is given, or the square of a face


def source_place(path: Path, image: NDArray[np.uint8], options: RenderOptions, report: Report) -> Place:
    """The place in a source image (H, W, 3) that is animated: the crop, or the square of a face.

    Raises InputError where there is no face and no crop is given.
    """
    if options.crop is not None:
        return options.crop
    faces = faces_in(image)
    if not faces:
        raise InputError(f"{path}: no face is found; give its square by --crop x,y,size, or --crop centre")
    if len(faces) > 1:
        report.notes.append(
            f"{path}: {len(faces)} faces; animated is {in_words(options.face)} (--face chooses another)"
        )
    return frame(image, choose(faces, options.face))


def image_of(image: NDArray[np.uint8], place: Place, size: int) -> NDArray[np.uint8]:
    """The pixels of a place in an image (H, W, 3), upright, as (size, size, 3)."""
    return cut(image, place, size) if isinstance(place, Square) else square(image, place, size)


def square_of(image: NDArray[np.uint8], place: Place) -> Square:
    """A place in an image (H, W, 3) as its square."""
    if isinstance(place, Square):
        return place
    x, y, side = center_square(image.shape[1], image.shape[0]) if place == "centre" else place
    return Square(x + side / 2, y + side / 2, side)


@ranges.ranged("faces")
def faces_in(image: NDArray[np.uint8]) -> list[Face]:
    """The faces of an image (H, W, 3), the best score first."""
    return find_faces(torch.from_numpy(image).permute(2, 0, 1))


def in_words(choice: object) -> str:
    """A choice of a face, as a report says it."""
    if isinstance(choice, str):
        return f"the one {choice} in view" if choice == "longest" else f"the {choice}"
    return f"number {choice} from the left" if isinstance(choice, int) else f"the one nearest to {choice}"
