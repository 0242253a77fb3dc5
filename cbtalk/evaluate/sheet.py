"""A contact sheet of all clips, and comparison videos."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from cbtalk.atomic import atomic_path
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


def save_sheet(path: Path, bands: Sequence[Path]) -> None:
    """Write bands (PNG files), one below the other, as a PNG file."""
    sheet = Image.new("RGB", ((1 + MOMENTS) * CELL, len(bands) * (CAPTION + 2 * CELL)))
    for number, file in enumerate(bands):
        with Image.open(file) as image:
            sheet.paste(image, (0, number * image.height))
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")


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
