"""The output of a render: the model's squares, enlarged ones, or the source with its square animated."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from cbtalk.faces import Square
from cbtalk.media.images import Image8
from cbtalk.media.yuv import Surroundings
from cbtalk.options.render import MOST_SIDE
from cbtalk.render.engine import Engine
from cbtalk.render.options import RenderOptions
from cbtalk.render.paste import Paste, colour_difference
from cbtalk.render.report import Report
from cbtalk.render.source import Source
from cbtalk.render.source_video import SourceFrame


@dataclass(frozen=True)
class Output:
    """Images of width x height pixels, and those that stand still around them, if any.

    finish: images of the model (B, S, S, 3) and the whole images of their sources, empty where a photo is the source,
    to the images that are written. meet: called with the images of a source video and their parts that the model sees
    (B, S, S, 3), when the engine has taken those and before their images are finished.
    """

    width: int
    height: int
    finish: Callable[[Image8, Sequence[SourceFrame]], Iterator[Image8]]
    surroundings: Surroundings | None = None
    meet: Callable[[Sequence[SourceFrame], Image8], None] = lambda frames, images: None


def output_of(source: Source, image: Image8, engine: Engine, options: RenderOptions, report: Report) -> Output:
    """The output that the options ask for; `image` is the source as the model sees it.

    Where the whole source is too large and scaled down, `report` takes note.
    """
    size = engine.talker.image_size
    if options.paste:
        h, w = _whole_size(source, options.output_size, report)
        return _whole_photo(source, image, engine, h, w) if source.video is None else _whole_video(source, engine, h, w)
    if options.output_size is not None:
        side = options.output_size
        return Output(side, side, lambda images, frames: (_resized(image, side, side) for image in images))
    return Output(3 * size if options.compare else size, size, lambda images, frames: iter(images))


def _whole_size(source: Source, longer: int | None, report: Report) -> tuple[int, int]:
    """Height and width of the whole source, at its own size or with a `longer` side."""
    height, width = source.image.shape[:2]
    if longer is None and max(height, width) > MOST_SIDE:
        longer = MOST_SIDE
        report.notes.append(f"{source.path}: is {width} x {height} pixels; the output's longer side is {longer}")
    scale = 1.0 if longer is None else longer / max(height, width)
    return max(16, round(height * scale)), max(16, round(width * scale))


def _whole_photo(source: Source, image: Image8, engine: Engine, h: int, w: int) -> Output:
    """A photo with its square animated."""
    paste = Paste(h, w, _scaled(source, 0, h, w), colour_difference(image, engine.unmoved()[0]))
    photo = _resized(source.image, h, w)
    left, top, right, bottom = paste.box
    return Output(
        right - left,
        bottom - top,
        lambda images, frames: (paste(photo, image) for image in images),
        Surroundings(photo, left, top),
    )


def _whole_video(source: Source, engine: Engine, h: int, w: int) -> Output:
    """A video with the square of each scene animated, in colours compared at the scene's first frame."""
    pastes: dict[int, Paste] = {}

    def meet(frames: Sequence[SourceFrame], images: Image8) -> None:
        new = {frame.scene: index for index, frame in reversed(list(enumerate(frames))) if frame.scene not in pastes}
        if new:
            unmoved = engine.unmoved()
            for scene, index in new.items():
                colours = colour_difference(images[index], unmoved[index])
                pastes[scene] = Paste(h, w, _scaled(source, scene, h, w), colours)

    def finish(images: Image8, frames: Sequence[SourceFrame]) -> Iterator[Image8]:
        for image, frame in zip(images, frames, strict=True):
            paste, result = pastes[frame.scene], np.array(_resized(frame.image, h, w))
            paste.box.of(result)[:] = paste(result, image)
            yield result

    return Output(w, h, finish, meet=meet)


def _scaled(source: Source, scene: int, h: int, w: int) -> Square:
    """The square of a scene in an output of h x w pixels."""
    height, width = source.image.shape[:2]
    x, y, side, angle = source.square(scene)
    return Square(x * w / width, y * h / height, side * max(h, w) / max(height, width), angle)


def _resized(image: Image8, height: int, width: int) -> Image8:
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
