"""An image of what a render takes of a source: the faces found, their numbers, and the square animated."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cbtalk.atomic import atomic_path
from cbtalk.errors import InputError
from cbtalk.faces import Face, FaceChoice, Square, choose, frame, from_left_to_right
from cbtalk.media.crop import CropBox, check_fits
from cbtalk.media.images import read_image
from cbtalk.render.destination import check_destination
from cbtalk.render.framing import faces_in, square_of
from cbtalk.render.options import RenderOptions

_FACE, _SQUARE = "#ffd400", "#00d26a"
_LINE = 1 / 300  # of the image's longer side
_TEXT = 1 / 30


class Preview(NamedTuple):
    """A source with its faces and the square that is animated drawn in; how many faces, and the square."""

    image: Image.Image
    faces: int
    square: Square

    def __str__(self) -> str:
        turned = f", turned by {self.square.angle:.0f} degrees" if self.square.angle else ""
        left, top = self.square.x - self.square.side / 2, self.square.y - self.square.side / 2
        found = "1 face" if self.faces == 1 else f"{self.faces} faces"
        return f"{found}; the square is {left:.0f},{top:.0f},{self.square.side:.0f}{turned}"


def crop_preview(source: Path, output: Path, choice: FaceChoice = "largest") -> str:
    """Draws the faces of an image and the square around the chosen one into `output` (.png); says what it found.

    Raises InputError, OutputError or SystemFailure; `output` is then as it was before.
    """
    check_destination(output, [source], (".png",))
    preview = preview_of(source, read_image(source), RenderOptions(face=choice))
    with atomic_path(output) as path:
        preview.image.save(path, format="PNG")
    return f"{output}: {preview}"


def preview_of(source: Path, image: NDArray[np.uint8], options: RenderOptions) -> Preview:
    """The preview of an image (H, W, 3) that was read of `source`, with the crop or the face of the options.

    Raises InputError where there is neither a face nor a crop, or the crop does not fit.
    """
    faces = from_left_to_right(faces_in(image))
    if options.crop is not None:
        if isinstance(options.crop, CropBox):
            check_fits(options.crop, image.shape[1], image.shape[0])
        square = square_of(image, options.crop)
    elif faces:
        square = frame(image, choose(faces, options.face))
    else:
        raise InputError(f"{source}: no face is found; give its square to render by --crop x,y,size, or --crop centre")
    return Preview(_drawn(image, faces, square), len(faces), square)


def _drawn(image: NDArray[np.uint8], faces: Sequence[Face], square: Square) -> Image.Image:
    drawing = Image.fromarray(np.ascontiguousarray(image))
    pen, longer = ImageDraw.Draw(drawing), max(drawing.size)
    width = max(2, round(longer * _LINE))
    font = ImageFont.load_default(longer * _TEXT)
    for number, face in enumerate(faces, 1):
        left, top, right, bottom = face.box.tolist()
        pen.rectangle((left, top, right, bottom), outline=_FACE, width=width)
        pen.text(
            (left + 2 * width, top + width), str(number), fill=_FACE, font=font, stroke_width=1, stroke_fill="black"
        )
    corners = [square.point(u, v) for u, v in ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0), (1, 0))]
    pen.line(corners, fill=_SQUARE, width=width, joint="curve")
    return drawing
