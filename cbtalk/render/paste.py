"""The animated square back in its place in the photo, under a feathered mask and in the photo's colours."""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from cbtalk.faces import Square
from cbtalk.media.images import Image8

FEATHER = 0.04  # of the side: from the edge of the square, where the photo is seen, to where the result is
RIM = 0.12  # of the side: from the edge of the square, where the colours are compared
SMOOTHNESS = 0.15  # of the side: standard deviation of the Gaussian under which colours are compared

Values = NDArray[np.floating]


class Box(NamedTuple):
    """Whole pixels of an image: columns from `left` up to `right`, rows from `top` up to `bottom`."""

    left: int
    top: int
    right: int
    bottom: int

    def of(self, image: Image8) -> Image8:
        """Its part of an image (H, W, 3), a view."""
        return image[self.top : self.bottom, self.left : self.right]


class Paste:
    """Lays images of a square (S, S, 3) uint8 over the square's place in images of one size.

    height, width: of the images. square: where the images belong; what reaches out of the image is left out.
    colours: (S, S, 3) levels to add to every image, from `colour_difference`.
    Only `box` is computed, and what the mask does not cover is the image's own, to the bit.
    """

    def __init__(self, height: int, width: int, square: Square, colours: NDArray[np.float32]) -> None:
        self.square, self._colours = square, colours
        self.box = _visible(height, width, square)
        x, y = np.arange(self.box.left, self.box.right) + 0.5, np.arange(self.box.top, self.box.bottom) + 0.5
        u, v = _in_square(square, x[None, :], y[:, None])
        self._mask = Image.fromarray((_covered(u, v) * 255).round().astype(np.uint8))
        if square.angle:
            self._grid = torch.from_numpy(np.stack(np.broadcast_arrays(u, v), axis=-1)[None] * 2 - 1).float()

    def __call__(self, image: Image8, animated: Image8) -> Image8:
        """The box of an image (H, W, 3) with an image (S, S, 3) of the square in it."""
        matched = (animated + self._colours).round().clip(0, 255).astype(np.uint8)
        pixels = Image.fromarray(self._turned(matched) if self.square.angle else self._upright(matched))
        result = Image.fromarray(np.ascontiguousarray(self.box.of(image))).copy()
        result.paste(pixels, (0, 0), self._mask)
        return np.asarray(result)

    def _upright(self, image: Image8) -> Image8:
        scale = len(image) / self.square.side
        left, top = self.square.x - self.square.side / 2, self.square.y - self.square.side / 2
        box = np.array(self.box) - np.array([left, top, left, top])
        size = (self.box.right - self.box.left, self.box.bottom - self.box.top)
        return np.asarray(
            Image.fromarray(image).resize(size, Image.Resampling.BICUBIC, box=tuple((box * scale).tolist()))
        )

    def _turned(self, image: Image8) -> Image8:
        # Between pixels twice as dense as what they show, bilinear samples are as good as bicubic ones, and quicker.
        size = min(len(image), max(1, round(self.square.side)))  # no smaller distances than those of the samples
        dense = np.array(_resized(_resized(image, size), 2 * size))
        pixels = torch.from_numpy(dense).permute(2, 0, 1)[None].float().contiguous()
        sampled = F.grid_sample(pixels, self._grid, mode="bilinear", padding_mode="border", align_corners=False)
        return sampled[0].round_().byte().permute(1, 2, 0).contiguous().numpy()


def _resized(image: Image8, size: int) -> Image8:
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS))


def colour_difference(wanted: Image8, made: Image8) -> NDArray[np.float32]:
    """(S, S, 3): levels that bring the colours of `made` (S, S, 3) to those of `wanted` at the rim.

    `made` is what the model makes of the source `wanted` without any motion. The difference is smooth, a Gaussian mean
    over the rim, so that it holds for every frame: it follows light and colour, not edges.
    """
    size = len(wanted)
    positions = (np.arange(size) + 0.5) / size
    edge = np.minimum(positions, 1 - positions)
    rim = (np.minimum(edge[:, None], edge) < RIM).astype(np.float64)[..., None]
    near = np.exp(-0.5 * ((positions[:, None] - positions[None, :]) / SMOOTHNESS) ** 2)

    def smoothed(values: Values) -> Values:
        return np.einsum("yv,vuc,xu->yxc", near, values, near, optimize=True)

    difference = wanted.astype(np.float64) - made
    return (smoothed(difference * rim) / smoothed(rim)).astype(np.float32)


def _covered(u: Values, v: Values) -> Values:
    """The weight of the result at (u, v) of the square: 0 at its edges and outside, 1 inside."""
    across, down = (np.clip(np.minimum(t, 1 - t) / FEATHER, 0, 1) for t in (u, v))
    return (across * across * (3 - 2 * across)) * (down * down * (3 - 2 * down))


def _visible(height: int, width: int, square: Square) -> Box:
    """The pixels of an image that lie in the square, for a turned one with those around it."""
    x, y = zip(*(square.point(u, v) for u, v in ((0, 0), (1, 0), (0, 1), (1, 1))), strict=True)
    left, top = (math.ceil(max(0.0, min(values))) for values in (x, y))
    right, bottom = (math.floor(min(float(most), max(values))) for most, values in ((width, x), (height, y)))
    return Box(left, top, right, bottom)


def _in_square(square: Square, x: Values, y: Values) -> tuple[Values, Values]:
    """Points of the image in coordinates of the square: the inverse of `Square.point`."""
    cosine, sine = math.cos(math.radians(square.angle)), math.sin(math.radians(square.angle))
    across, down = x - square.x, y - square.y
    return (cosine * across + sine * down) / square.side + 0.5, (cosine * down - sine * across) / square.side + 0.5
