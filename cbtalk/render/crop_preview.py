"""A picture of what a render takes of a source: the faces found, their numbers, and the square animated."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cbtalk.atomic import atomic_path
from cbtalk.errors import InputError
from cbtalk.faces import FaceChoice, choose, frame, from_left_to_right
from cbtalk.media.images import read_image
from cbtalk.render.destination import check_destination
from cbtalk.render.framing import faces_in

_FACE, _SQUARE = "#ffd400", "#00d26a"
_LINE = 1 / 300  # of the picture's longer side
_TEXT = 1 / 30


def crop_preview(source: Path, output: Path, choice: FaceChoice = "largest") -> str:
    """Draws the faces of an image and the square around the chosen one into `output` (.png); says what it found.

    Raises InputError, OutputError or SystemFailure; `output` is then as it was before.
    """
    check_destination(output, [source], (".png",))
    image = read_image(source)
    faces = from_left_to_right(faces_in(image))
    if not faces:
        raise InputError(f"{source}: no face is found; give its square to render by --crop x,y,size, or --crop centre")
    square = frame(image, choose(faces, choice))
    picture = Image.fromarray(np.ascontiguousarray(image))
    pen, longer = ImageDraw.Draw(picture), max(picture.size)
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
    with atomic_path(output) as path:
        picture.save(path, format="PNG")
    turned = f", turned by {square.angle:.0f} degrees" if square.angle else ""
    left, top = square.x - square.side / 2, square.y - square.side / 2
    found = "1 face" if len(faces) == 1 else f"{len(faces)} faces"
    return f"{output}: {found}; the square is {left:.0f},{top:.0f},{square.side:.0f}{turned}"
