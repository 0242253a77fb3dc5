"""A contact sheet of all clips, and comparison videos."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from cbtalk.atomic import atomic_path
from cbtalk.errors import InputError
from cbtalk.evaluate.judge import Frame, Show
from cbtalk.file_names import printable
from cbtalk.media.clips import Clip, clip_rate
from cbtalk.media.moments import Moments
from cbtalk.media.video_writer import VideoWriter

MOMENTS = 5  # columns beside the source
CELL = 192  # pixels a side of an image on the sheet
CAPTION = 16  # pixels above a band

Pair = tuple[Frame, Frame]  # driving, result


def band(caption: str, source: Frame, moments: list[Pair]) -> Image.Image:
    """A sequence on the sheet: the source on the left, driving images above, results below."""
    image = Image.new("RGB", ((1 + MOMENTS) * CELL, CAPTION + 2 * CELL), "white")
    ImageDraw.Draw(image).text((2, 2), printable(caption), fill="black")
    image.paste(_cell(source), (0, CAPTION))
    for column, pair in enumerate(moments, start=1):
        for row, frame in enumerate(pair):
            image.paste(_cell(frame), (column * CELL, CAPTION + row * CELL))
    return image


def save_sheet(path: Path, bands: Sequence[Path], beside: Path | None = None) -> None:
    """Write bands (PNG files), one below the other, as a PNG file.

    Args:
        beside: such a file with the same bands of other weights, whose results are shown below those of each band.

    Raises:
        InputError: `beside` is no such file.
    """
    images = [_read(file) for file in bands]
    if beside is not None:
        images = [_with_results_of(image, other, beside) for image, other in zip(images, _cut(beside), strict=False)]
        if len(images) < len(bands):
            raise _unlike(beside)
    sheet = Image.new("RGB", (images[0].width, sum(image.height for image in images)))
    top = 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")


def _read(file: Path) -> Image.Image:
    try:
        with Image.open(file) as image:
            return image.convert("RGB")
    except OSError as error:
        raise InputError(f"{file}: no image that can be read: {error}") from None


def _cut(sheet: Path) -> list[Image.Image]:
    """The bands of a sheet of one result."""
    image, height = _read(sheet), CAPTION + 2 * CELL
    return [image.crop((0, top, image.width, top + height)) for top in range(0, image.height, height)]


def _with_results_of(band: Image.Image, other: Image.Image, sheet: Path) -> Image.Image:
    """A band, and the results of the other one below, each with a word on whose they are."""
    seen = (0, 0, band.width, CAPTION + CELL)  # caption, source and driving images: the same in both
    if other.size != band.size or band.crop(seen).tobytes() != other.crop(seen).tobytes():
        raise _unlike(sheet)
    joined = Image.new("RGB", (band.width, band.height + CELL), "white")
    joined.paste(band)
    joined.paste(other.crop((0, CAPTION + CELL, band.width, band.height)), (0, band.height))
    words = ImageDraw.Draw(joined)
    for top, name in ((CAPTION + CELL, "these weights"), (band.height, printable(sheet.name))):
        words.text((4, top + 4), name, fill="black")
    return joined


def _unlike(sheet: Path) -> InputError:
    return InputError(
        f"{sheet}: not a contact sheet of the same clips at the same moments; make it by the same command with the "
        "other weights and without --beside"
    )


@contextmanager
def viewed(clip: Clip, size: int, caption: str, video: Path | None, bands: list[Image.Image]) -> Iterator[Show]:
    """A function to call with (source, driving, result) for each frame; at its end, its band is among the `bands`.

    Args:
        video: source, driving and result side by side, to write as fast as the clip on the average.
    """
    moments = Moments[Pair](MOMENTS, lambda pair: (pair[0].copy(), pair[1].copy()))
    sources: list[Frame] = []
    rate = clip_rate(clip)
    with ExitStack() as stack:
        writer = None
        if video is not None:
            writer = stack.enter_context(VideoWriter(video, width=3 * size, height=size, rate=rate, time_base=1 / rate))

        def show(source: Frame, driving: Frame, result: Frame) -> None:
            if writer is not None:
                writer.write(np.concatenate([source, driving, result], axis=1), moments.seen)
            moments.add((driving, result))
            sources[:] = [source]

        yield show
    bands.append(band(caption, sources[0], moments.chosen()))


def _cell(image: Frame) -> Image.Image:
    return Image.fromarray(image).resize((CELL, CELL), Image.Resampling.BICUBIC)
