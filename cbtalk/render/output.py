"""The output of a render: the model's squares, enlarged ones, or the source with its square animated."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cbtalk.faces import Square
from cbtalk.media.yuv import Surroundings
from cbtalk.render.engine import Engine
from cbtalk.render.options import MOST_SIDE, RenderOptions
from cbtalk.render.paste import Paste, colour_difference
from cbtalk.render.report import Report
from cbtalk.render.source import Source

Image8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Output:
    """Pictures of width x height pixels, and those that stand still around them, if any.

    finish: pictures of the model (B, S, S, 3) and the whole images of their sources, empty where a photo is the source,
    to the pictures that are written.
    """

    width: int
    height: int
    finish: Callable[[Image8, Sequence[Image8]], Iterator[Image8]]
    surroundings: Surroundings | None = None


def output_of(source: Source, picture: Image8, engine: Engine, options: RenderOptions, report: Report) -> Output:
    """The output that the options ask for; `picture` is the source as the model sees it.

    Where the whole source is too large and scaled down, `report` takes note.
    """
    size = engine.talker.image_size
    if options.paste:
        return _whole(source, picture, engine, options.output_size, report)
    if options.output_size is not None:
        side = options.output_size
        return Output(side, side, lambda pictures, images: (_resized(picture, side, side) for picture in pictures))
    return Output(3 * size if options.compare else size, size, lambda pictures, images: iter(pictures))


def _whole(source: Source, picture: Image8, engine: Engine, longer: int | None, report: Report) -> Output:
    """The source with its square animated, at its own size or with a `longer` side."""
    height, width = source.image.shape[:2]
    if longer is None and max(height, width) > MOST_SIDE:
        longer = MOST_SIDE
        report.notes.append(f"{source.path}: is {width} x {height} pixels; the output's longer side is {longer}")
    scale = 1.0 if longer is None else longer / max(height, width)
    h, w = max(16, round(height * scale)), max(16, round(width * scale))
    x, y, side, angle = source.square
    colours = colour_difference(picture, engine.unmoved())
    paste = Paste(h, w, Square(x * w / width, y * h / height, side * scale, angle), colours)
    if source.video is not None:

        def each(pictures: Image8, images: Sequence[Image8]) -> Iterator[Image8]:
            for picture, image in zip(pictures, images, strict=True):
                result = np.array(_resized(image, h, w))
                paste.box.of(result)[:] = paste(result, picture)
                yield result

        return Output(w, h, each)
    photo = _resized(source.image, h, w)
    left, top, right, bottom = paste.box
    return Output(
        right - left,
        bottom - top,
        lambda pictures, images: (paste(photo, picture) for picture in pictures),
        Surroundings(photo, left, top),
    )


def _resized(image: Image8, height: int, width: int) -> Image8:
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
