"""What an eye judges: a contact sheet of all clips, and comparison videos."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cbtalk.atomic import atomic_path
from cbtalk.media.clips import Clip, clip_rate
from cbtalk.media.video_writer import VideoWriter

MOMENTS = 5  # columns beside the source
CELL = 192  # pixels a side of a picture on the sheet
CAPTION = 16  # pixels above a band

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]  # driving, result: (S, S, 3)


class Moments:
    """Some moments of a sequence of unknown length, spread evenly over it, in constant memory."""

    def __init__(self) -> None:
        self._kept: list[Pair] = []
        self._step = 1
        self.seen = 0

    def add(self, driving: NDArray[np.uint8], result: NDArray[np.uint8]) -> None:
        """The next frame (S, S, 3)."""
        if self.seen % self._step == 0:
            self._kept.append((driving.copy(), result.copy()))
            if len(self._kept) == 4 * MOMENTS:
                self._kept = self._kept[::2]
                self._step *= 2
        self.seen += 1

    def chosen(self) -> list[Pair]:
        """At most MOMENTS of them, in order, the first kept and the last among them."""
        count = min(MOMENTS, len(self._kept))
        return [self._kept[int(place)] for place in np.linspace(0, len(self._kept) - 1, count).round()]


class ContactSheet:
    """A band for each sequence: the source on the left, driving pictures above, results below."""

    def __init__(self) -> None:
        self._bands: list[Image.Image] = []

    def add(self, caption: str, source: NDArray[np.uint8], moments: list[Pair]) -> None:
        """Another band."""
        band = Image.new("RGB", ((1 + MOMENTS) * CELL, CAPTION + 2 * CELL), "white")
        ImageDraw.Draw(band).text((2, 2), caption, fill="black")
        band.paste(_cell(source), (0, CAPTION))
        for column, pair in enumerate(moments, start=1):
            for row, picture in enumerate(pair):
                band.paste(_cell(picture), (column * CELL, CAPTION + row * CELL))
        self._bands.append(band)

    def save(self, path: Path) -> None:
        """Write the bands, one below the other, as a PNG file."""
        sheet = Image.new("RGB", (self._bands[0].width, sum(band.height for band in self._bands)))
        top = 0
        for band in self._bands:
            sheet.paste(band, (0, top))
            top += band.height
        with atomic_path(path) as temporary:
            sheet.save(temporary, format="PNG")


@contextmanager
def comparison_video(path: Path, clip: Clip, size: int) -> Iterator[VideoWriter]:
    """A video to write pictures of (size, 3 size) to, as fast as the clip on the average."""
    rate = clip_rate(clip)
    with VideoWriter(path, width=3 * size, height=size, rate=rate, time_base=1 / rate) as writer:
        yield writer


def _cell(picture: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(picture).resize((CELL, CELL), Image.Resampling.BICUBIC)
