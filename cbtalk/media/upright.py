"""Decoded video frames as the viewer should see them: RGB, upright, square pixels, of one size."""

from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.sidedata.sidedata import SideData, SideDataContainer, Type
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from cbtalk.media.alpha import over_white
from cbtalk.media.colour import ToSrgb, signal_of
from cbtalk.media.threads import decoding_threads

# Without the last three flags swscale is off by up to 3 levels on flat colours; with them by at most 1.
_ACCURATE = (
    Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)
_KNOWN_MATRICES = {1, 4, 5, 6, 7, 9}  # bt709, fcc, bt470bg, smpte170m, smpte240m, bt2020 as H.273 numbers them
_SD_HEIGHT, _HD_WIDTH = 576, 1280  # untagged video beyond the first, or from the second on, is bt709, else bt601


class UprightRgb:
    """Converts the frames of one video stream; the first frame settles size and orientation for all.

    Colours follow the frame's own tags; HDR and wide colour are brought to BT.709 (`colour`). Transparency is laid over
    white. Pixels that are not square are made so by changing the width. A frame of another size than the first one's
    is scaled, its shape kept, until the shorter sides agree, and centred: what sticks out is cut off, and what is
    missing is filled with the edge.
    """

    def __init__(self, first: av.VideoFrame, pixel_aspect: Fraction | None) -> None:
        """Settle the size from the first frame; `pixel_aspect` is a pixel's width over its height, None if unknown."""
        self._aspect = pixel_aspect if pixel_aspect and Fraction(1, 4) <= pixel_aspect <= 4 else Fraction(1)
        self._matrix = _display_matrix(first)
        self._reformatter, self._threads = VideoReformatter(), decoding_threads()
        self._to_srgb: ToSrgb | None = None
        self._stored = self._square_pixels(first)
        turned = _is_turned(self._matrix)
        self.width, self.height = self._stored[::-1] if turned else self._stored

    def __call__(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """The image as (height, width, 3) uint8 RGB. Raises av.FFmpegError where the pixel format is unknown."""
        width, height = self._square_pixels(frame)
        if (width, height) != self._stored:
            scale = min(self._stored) / min(width, height)
            width, height = max(1, round(width * scale)), max(1, round(height * scale))
        alpha = any(component.is_alpha for component in frame.format.components)
        matrix = _assumed_matrix(frame)
        signal = signal_of(frame)
        if not (signal.is_ordinary or alpha):
            if self._to_srgb is None or self._to_srgb.signal != signal:
                self._to_srgb = ToSrgb(signal)
            wide = self._reformatter.reformat(
                frame, format="gbrp16le", src_colorspace=matrix, interpolation=_ACCURATE, threads=self._threads
            )
            frame, matrix = self._to_srgb(wide), None
        converted = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgba" if alpha else "rgb24",
            src_colorspace=matrix,
            interpolation=_ACCURATE,
            threads=self._threads,
        )
        image = cast(NDArray[np.uint8], converted.to_ndarray())
        return _turn(_fitted(over_white(image) if alpha else image, self._stored), self._matrix)

    def fits(self, frame: av.VideoFrame) -> bool:
        """Whether a frame is of the first one's size."""
        return self._square_pixels(frame) == self._stored

    def _square_pixels(self, frame: av.VideoFrame) -> tuple[int, int]:
        return max(1, round(frame.width * self._aspect)), frame.height


def _fitted(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """An image (H, W, 3) centred in another (width, height), cut or filled with its edge where they differ."""
    height, width = image.shape[:2]
    if (width, height) == size:
        return image
    columns, rows = (
        (np.arange(wanted) + (there - wanted) // 2).clip(0, there - 1)
        for wanted, there in zip(size, (width, height), strict=True)
    )
    return image[rows[:, None], columns[None, :]]


def _assumed_matrix(frame: av.VideoFrame) -> Colorspace | None:
    """The matrix for a frame whose tag says nothing, None where the tag (or an RGB format) says it all."""
    if frame.format.is_rgb or frame.colorspace in _KNOWN_MATRICES:
        return None
    large = frame.height > _SD_HEIGHT or frame.width >= _HD_WIDTH
    return Colorspace.ITU709 if large else Colorspace.ITU601


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """(a, b, c, d) of the display matrix: a stored pixel (x, y) is shown at (a x + c y, b x + d y)."""
    # Not frame.side_data: a frame that holds its own holder stays until a collection of all garbage, with its image.
    data = cast(SideData | None, SideDataContainer(frame).get(Type.DISPLAYMATRIX))  # type: ignore[call-arg,call-overload]
    if data is not None:
        values = np.frombuffer(bytes(data), dtype=np.int32)
        return int(values[0]), int(values[1]), int(values[3]), int(values[4])
    return 1, 0, 0, 1


def _is_turned(matrix: tuple[int, int, int, int]) -> bool:
    a, b, c, d = matrix
    return abs(b) + abs(c) > abs(a) + abs(d)


def _turn(image: NDArray[np.uint8], matrix: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Apply the display matrix, to the nearest of the eight orientations, to an image (H, W, 3)."""
    a, b, c, d = matrix
    if _is_turned(matrix):
        image, mirror, flip = image.swapaxes(0, 1), c < 0, b < 0
    else:
        mirror, flip = a < 0, d < 0
    if mirror:
        image = image[:, ::-1]
    if flip:
        image = image[::-1]
    return np.ascontiguousarray(image)
