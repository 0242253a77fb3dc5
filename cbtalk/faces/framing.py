"""The square around a face that a model animates: where it lies, and its pixels upright at a given size.

The shares of a face in its square are medians over the 90 people of the training clips (docs/decisions/faces.md).
"""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cbtalk.faces.detector import Face, FaceDetector, find_faces

BOX_HEIGHT = 0.692  # of the detector's box, in sides of the square
BOX_CENTRE = (0.501, 0.504)  # of the box in the square, from its top left corner
UPRIGHT = 15.0  # degrees of roll from which on a face is turned upright

_CLOSE_UP = 320  # px of the square in which a face is looked at again
_MARGIN = 1.4  # sides of the square that such a look sees
_LOOKS = 5
_TURNS = (-12.0, -6.0, 0.0, 6.0, 12.0, 0.0)
_STEP = 1.5  # turned for each degree of roll seen


class Square(NamedTuple):
    """A square in an image, in pixels of the image; it may reach out of it.

    (x, y) is its centre, and `angle` (degrees) turns its horizontal clockwise, as seen, from the image's.
    """

    x: float
    y: float
    side: float
    angle: float = 0.0

    def scaled(self, factor: float) -> "Square":
        """The square of a multiple of the side about the same centre."""
        return self._replace(side=self.side * factor)

    def point(self, u: float, v: float) -> tuple[float, float]:
        """The image's (x, y) of a point of the square, (0, 0) its top left corner and (1, 1) its bottom right one."""
        cosine, sine = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        across, down = (u - 0.5) * self.side, (v - 0.5) * self.side
        return self.x + cosine * across - sine * down, self.y + sine * across + cosine * down


def roll(face: Face) -> float:
    """The face's in-plane rotation in degrees, clockwise as seen: of its eyes, and of the line from eyes to mouth."""
    left, right, _, mouth_left, mouth_right = face.points
    across = right - left
    down = (mouth_left + mouth_right) / 2 - (left + right) / 2
    x, y = (across / across.norm() + torch.stack((down[1], -down[0])) / down.norm()).tolist()
    return math.degrees(math.atan2(y, x))


def frame(
    image: NDArray[np.uint8], face: Face, detector: FaceDetector = find_faces, *, turn_from: float = UPRIGHT
) -> Square:
    """The square of a face in an RGB image (H, W, 3), as the training clips are framed.

    The face is looked for again at one size while the view is turned until it stands upright, which makes the answer
    nearly independent of its size and rotation: detectors trained on upright faces see too little of a roll. A roll of
    no more than `turn_from` degrees is left as it is, for the training clips have such.
    """
    angle = _STEP * roll(face)
    square = around(face, angle)
    for turns in (*((0.0,) for _ in range(_LOOKS)), _TURNS):
        residuals = []
        for turn in turns:
            view = square.scaled(_MARGIN)._replace(angle=angle + turn)
            again = _look(torch.from_numpy(cut(image, view, _CLOSE_UP)).permute(2, 0, 1), detector)
            if again is not None:
                residuals.append(roll(again) + turn)
                found = around(again, angle, view)
        if not residuals:
            break
        angle += sum(residuals) / len(residuals)
        square = found
    return square if abs(square.angle) > turn_from else square._replace(angle=0.0)


def _look(close_up: Tensor, detector: FaceDetector) -> Face | None:
    """The face in the middle of a close-up: the mean of what is found in it and in its mirror image."""
    seen = min(detector(close_up), key=_from_the_middle, default=None)
    mirrored = min(detector(close_up.flip(2)), key=_from_the_middle, default=None)
    if seen is None or mirrored is None:
        return seen
    flip = torch.tensor([-1.0, 1.0])
    box = mirrored.box.view(2, 2) * flip + torch.tensor([float(_CLOSE_UP), 0.0])
    box = torch.stack((box[1, 0], box[0, 1], box[0, 0], box[1, 1]))
    points = (mirrored.points * flip + torch.tensor([float(_CLOSE_UP), 0.0]))[[1, 0, 2, 4, 3]]
    return Face((seen.box + box) / 2, seen.score, (seen.points + points) / 2)


def _from_the_middle(face: Face) -> float:
    """Distance from the middle of a close-up, in its pixels."""
    return float(((face.box[:2] + face.box[2:]) / 2 - _CLOSE_UP / 2).norm())


def around(face: Face, angle: float = 0.0, view: Square | None = None) -> Square:
    """The square, turned by `angle`, around a face that was found in an image or in the close-up of a view of it."""
    left, top, right, bottom = face.box.tolist()
    side = (bottom - top) / BOX_HEIGHT
    x = (left + right) / 2 + (0.5 - BOX_CENTRE[0]) * side
    y = (top + bottom) / 2 + (0.5 - BOX_CENTRE[1]) * side
    if view is None:
        return Square(x, y, side, angle)
    return Square(*view.point(x / _CLOSE_UP, y / _CLOSE_UP), side * view.side / _CLOSE_UP, angle)


def cut(image: NDArray[np.uint8], square: Square, size: int) -> NDArray[np.uint8]:
    """The pixels of a square of an image (H, W, 3), upright, as (size, size, 3), antialiased.

    Where the square reaches out of the image, the image is reflected at its edges.
    """
    return _cut_upright(image, square, size) if square.angle == 0 else _cut_turned(image, square, size)


def _cut_upright(image: NDArray[np.uint8], square: Square, size: int) -> NDArray[np.uint8]:
    left, top = square.x - square.side / 2, square.y - square.side / 2
    margin = math.ceil(2 * max(1.0, square.side / size)) + 1  # the filter's reach
    region_left, region_top = math.floor(left) - margin, math.floor(top) - margin
    region = _reflected(image, region_left, region_top, math.ceil(square.side) + 2 * margin + 1)
    x, y = left - region_left, top - region_top
    box = (x, y, x + square.side, y + square.side)
    resized = Image.fromarray(region).resize((size, size), Image.Resampling.BICUBIC, box, reducing_gap=2.0)
    return np.array(resized)  # a copy, for Pillow's own memory is read-only


def _cut_turned(image: NDArray[np.uint8], square: Square, size: int) -> NDArray[np.uint8]:
    reach = square.side / 2 * (abs(math.cos(math.radians(square.angle))) + abs(math.sin(math.radians(square.angle))))
    left, top = math.floor(square.x - reach) - 1, math.floor(square.y - reach) - 1
    extent = math.ceil(2 * reach) + 3
    region = _reflected(image, left, top, extent)
    scale = min(1.0, size / square.side)
    shrunk = max(1, round(extent * scale))
    if shrunk < extent:
        shrinking = Image.fromarray(region).resize((shrunk, shrunk), Image.Resampling.BICUBIC, reducing_gap=2.0)
        region = np.array(shrinking)
    corners = [square.point(u, v) for u, v in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))]
    theta = _affine([((x - left) / extent * 2 - 1, (y - top) / extent * 2 - 1) for x, y in corners])
    pixels = torch.from_numpy(region).permute(2, 0, 1)[None].float()
    grid = F.affine_grid(theta[None], [1, 3, size, size], align_corners=False)
    sampled = F.grid_sample(pixels, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return sampled[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()


def _affine(corners: list[tuple[float, float]]) -> Tensor:
    """(2, 3): from [-1, 1] of the output to the input's, by where the top left, top right, bottom left corners go."""
    (x0, y0), (x1, y1), (x2, y2) = corners
    across, down = ((x1 - x0) / 2, (y1 - y0) / 2), ((x2 - x0) / 2, (y2 - y0) / 2)
    centre = (x0 + across[0] + down[0], y0 + across[1] + down[1])
    return torch.tensor([[across[0], down[0], centre[0]], [across[1], down[1], centre[1]]])


def _reflected(image: NDArray[np.uint8], left: int, top: int, extent: int) -> NDArray[np.uint8]:
    """A square of whole pixels of an image that may reach out of it; a view of the image where it does not."""
    if left >= 0 and top >= 0 and left + extent <= image.shape[1] and top + extent <= image.shape[0]:
        return image[top : top + extent, left : left + extent]
    rows = _reflect(np.arange(top, top + extent), image.shape[0])
    columns = _reflect(np.arange(left, left + extent), image.shape[1])
    return image[rows][:, columns]


def _reflect(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Indices folded into [0, size) by reflection at the edges, which count twice."""
    folded = index % (2 * size)
    return np.minimum(folded, 2 * size - 1 - folded)
