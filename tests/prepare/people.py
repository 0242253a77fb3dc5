"""Raw videos with people in them, made of the portrait that scikit-image carries."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from cbtalk.media.images import Image8
from tests.helpers.photos import head
from tests.helpers.videos import write_clip

RATE = 10
WIDTH, HEIGHT = 640, 360
SWAY = 8  # px


class Person(NamedTuple):
    """A head in a square of `side` px whose middle is (x, y)."""

    x: int
    y: int
    side: int
    sways: bool = True
    blur: float = 0.0


def shot(people: Sequence[Person], seconds: float, *, light: int = 0) -> list[Image8]:
    """Frames with these people before a wall, of a brightness that tells the shot."""
    frames = []
    for number in range(round(seconds * RATE)):
        canvas = Image.new("RGB", (WIDTH, HEIGHT), (light, 120, 255 - light))
        for x, y, side, sways, blur in people:
            image = head(side)
            image = image.filter(ImageFilter.GaussianBlur(blur * side / 256)) if blur else image
            moved = round(SWAY * math.sin(number)) if sways else 0
            canvas.paste(image, (x - side // 2 + moved, y - side // 2))
        frames.append(np.array(canvas))
    return frames


def write_raw(path: Path, *shots: list[Image8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_clip(path, [frame for one in shots for frame in one], rate=RATE, options={"crf": "10"})
