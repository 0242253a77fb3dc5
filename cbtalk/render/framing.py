"""What the model sees of a source: a square that is given, or found by its face."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cbtalk.errors import InputError
from cbtalk.faces import Face, choose, cut, find_faces, frame
from cbtalk.render.driving import square
from cbtalk.render.options import RenderOptions
from cbtalk.render.report import Report


def source_picture(
    path: Path, image: NDArray[np.uint8], options: RenderOptions, size: int, report: Report
) -> NDArray[np.uint8]:
    """What the model sees of a source image (H, W, 3): (size, size, 3), the crop or the square of a face.

    Raises InputError where there is no face and no crop is given.
    """
    if options.crop is not None:
        return square(image, options.crop, size)
    faces = faces_in(image)
    if not faces:
        raise InputError(f"{path}: no face is found; give its square by --crop x,y,size, or --crop centre")
    if len(faces) > 1:
        chosen = in_words(options.face)
        report.notes.append(f"{path}: {len(faces)} faces; animated is {chosen} (--face chooses another)")
    return cut(image, frame(image, choose(faces, options.face)), size)


def faces_in(image: NDArray[np.uint8]) -> list[Face]:
    """The faces of an image (H, W, 3), the best score first."""
    return find_faces(torch.from_numpy(image).permute(2, 0, 1))


def in_words(choice: object) -> str:
    """A choice of a face, as a report says it."""
    if isinstance(choice, str):
        return f"the one {choice} in view" if choice == "longest" else f"the {choice}"
    return f"number {choice} from the left" if isinstance(choice, int) else f"the one nearest to {choice}"
