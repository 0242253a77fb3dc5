"""RGB images as frames for the encoder: yuv420p of even size, BT.709, limited range."""

from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

BT709 = 1  # as matrix, primaries and transfer, in H.273 and in FFmpeg

_REACH = 8  # px at the edge of a part of an image that its surroundings may change, by the filter of the colours


class Surroundings(NamedTuple):
    """An image (H, W, 3) uint8 RGB that stands still around the images of a video, which lie at (left, top)."""

    image: NDArray[np.uint8]
    left: int
    top: int


class ToYuv:
    """Converts images (H, W, 3) uint8 RGB; odd sizes are made even by repeating the last column or row."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, image: NDArray[np.uint8]) -> av.VideoFrame:
        """A new frame."""
        frame = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(_even(image), format="rgb24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            interpolation=Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP,
            threads=1,
        )
        frame.color_primaries = frame.color_trc = BT709
        return frame


class ToYuvInPlace:
    """As `ToYuv`, for images of one size in their surroundings: these are converted once.

    Two frames take turns: one may wait for the encoder while the other is filled.
    """

    def __init__(self, surroundings: Surroundings, width: int, height: int) -> None:
        self._convert = ToYuv()
        image = surroundings.image
        self._frames = [self._convert(image), self._convert(image)]
        self._rows = _Span.around(surroundings.top, height, image.shape[0])
        self._columns = _Span.around(surroundings.left, width, image.shape[1])
        self._part = image[self._rows.start : self._rows.stop, self._columns.start : self._columns.stop].copy()
        top, left = surroundings.top - self._rows.start, surroundings.left - self._columns.start
        self._image = self._part[top : top + height, left : left + width]

    def __call__(self, image: NDArray[np.uint8]) -> av.VideoFrame:
        """The frame with this image in it, good until the next but one is asked for."""
        self._image[:] = image
        part = self._convert(self._part)
        frame = self._frames[0]
        self._frames.reverse()
        frame.make_writable()  # copies where the encoder has not let go of it
        for to_plane, from_plane, step in zip(frame.planes, part.planes, (1, 2, 2), strict=True):
            rows, columns = self._rows.over(step), self._columns.over(step)
            inner = _pixels(from_plane)[rows.kept, columns.kept]
            _pixels(to_plane)[rows.target, columns.target] = inner
        return frame


class _Span(NamedTuple):
    """The rows or columns of a part [start, stop) of an image, of which [first, last) are taken over."""

    start: int
    stop: int
    first: int
    last: int

    @classmethod
    def around(cls, first: int, size: int, whole: int) -> "_Span":
        """The part around `size` rows or columns from `first` on, of `whole` made even; all numbers are even."""
        whole += whole % 2
        inner = max(0, first - _REACH) // 2 * 2, min(whole, (first + size + _REACH + 1) // 2 * 2)
        return cls(max(0, inner[0] - _REACH), min(whole, inner[1] + _REACH), *inner)

    def over(self, step: int) -> "_Span":
        """The same in a plane that has every `step`-th row and column."""
        return _Span(*(number // step for number in self))

    @property
    def kept(self) -> slice:
        """The rows and columns that are taken over, in the part."""
        return slice(self.first - self.start, self.last - self.start)

    @property
    def target(self) -> slice:
        """The rows and columns that are taken over, in the whole."""
        return slice(self.first, self.last)


def _pixels(plane: av.video.plane.VideoPlane) -> NDArray[np.uint8]:
    """The plane's own memory, (rows, bytes from row to row)."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)


def _even(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        return np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return image
