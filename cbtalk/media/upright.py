"""Decoded video frames as the viewer should see them: RGB, upright, square pixels."""

from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.sidedata.sidedata import SideData, Type
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

# Without the last three flags swscale is off by up to 3 levels on flat colours; with them by at most 1.
_ACCURATE = (
    Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)
_KNOWN_MATRICES = {1, 4, 5, 6, 7, 9}  # bt709, fcc, bt470bg, smpte170m, smpte240m, bt2020 as H.273 numbers them
_HD_HEIGHT = 720  # untagged video from this height on is bt709, below it bt601, as players take it


class UprightRgb:
    """Converts the frames of one video stream; the first frame settles size and orientation for all.

    Colours follow the frame's own matrix and range tags; HDR is not tone-mapped. Transparency is laid over white.
    Pixels that are not square are made so by changing the width. A frame whose size differs from the first one's is
    scaled to it.
    """

    def __init__(self, first: av.VideoFrame, pixel_aspect: Fraction | None) -> None:
        """Settle the size from the first frame; `pixel_aspect` is a pixel's width over its height, None if unknown."""
        aspect = pixel_aspect if pixel_aspect and Fraction(1, 4) <= pixel_aspect <= 4 else Fraction(1)
        self._stored = (max(1, round(first.width * aspect)), first.height)
        self._matrix = _display_matrix(first)
        self._reformatter = VideoReformatter()
        turned = _is_turned(self._matrix)
        self.width, self.height = self._stored[::-1] if turned else self._stored

    def __call__(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """The picture as (height, width, 3) uint8 RGB. Raises av.FFmpegError where the pixel format is unknown."""
        alpha = any(component.is_alpha for component in frame.format.components)
        width, height = self._stored
        converted = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgba" if alpha else "rgb24",
            src_colorspace=_assumed_matrix(frame),
            interpolation=_ACCURATE,
            threads=1,
        )
        image = cast(NDArray[np.uint8], converted.to_ndarray())
        return _turn(_over_white(image) if alpha else image, self._matrix)


def _assumed_matrix(frame: av.VideoFrame) -> Colorspace | None:
    """The matrix for a frame whose tag says nothing, None where the tag (or an RGB format) says it all."""
    if frame.format.is_rgb or frame.colorspace in _KNOWN_MATRICES:
        return None
    return Colorspace.ITU709 if frame.height >= _HD_HEIGHT else Colorspace.ITU601


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """(a, b, c, d) of the display matrix: a stored pixel (x, y) is shown at (a x + c y, b x + d y)."""
    data = cast(SideData | None, frame.side_data.get(Type.DISPLAYMATRIX))  # type: ignore[call-overload]
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


def _over_white(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGBA (H, W, 4) over a white ground, (H, W, 3)."""
    colour, alpha = image[..., :3].astype(np.uint16), image[..., 3:].astype(np.uint16)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
