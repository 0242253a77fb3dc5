"""Maps of how much further mouth and eyes are open, or closed, than in the source; they modulate the generator.

A warped source has nothing to show between lips that it has closed, and its features do not say that they opened. The
maps are drawn from keypoints that training guides there.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from cbtalk.model.blocks import cast_for, to_image, to_tokens
from cbtalk.model.keypoints import coordinate_grid

# Numbers of the keypoints that `cbtalk.train.face_points` guides there.
MOUTH_CORNERS, UPPER_LIDS, LOWER_LIDS, PUPILS, LIPS = (0, 1), (2, 3), (4, 5), (6, 7), (12, 13)

PARTS = 3  # mouth, left eye, right eye
MOUTH = 0.4  # half of a mouth's width, in distances of its corners
EYE = 0.2  # half of an eye's width, in distances of the pupils
THINNEST = 0.012  # half of the height of a closed one, 1 being half of the image
SLOPE = 4.0  # of a map's strength, by the change of height in widths
GAIN = 128.0  # Adam's steps are equally long for all parameters; those that start at zero need more


class Openings(NamedTuple):
    """Mouth and eyes of faces as ellipses."""

    centre: Tensor  # (B, 3, 2) in [-1, 1]
    along: Tensor  # (B, 3, 2): direction of the width, of length 1
    width: Tensor  # (B, 3, 1): half of it
    height: Tensor  # (B, 3, 1): half of it


def openings_of(points: Tensor) -> Openings:
    """Mouth and eyes between the lips and the lids, by keypoints (B, K, 2)."""
    corners, lips = points[:, MOUTH_CORNERS, :], points[:, LIPS, :]
    upper, lower, pupils = points[:, UPPER_LIDS, :], points[:, LOWER_LIDS, :], points[:, PUPILS, :]
    mouth, eye = MOUTH * (corners[:, 1:] - corners[:, :1]), EYE * (pupils[:, 1:] - pupils[:, :1])
    along = torch.cat([mouth, eye, eye], dim=1)
    width = along.norm(dim=-1, keepdim=True).clamp(min=THINNEST)
    along = along / width
    gap = torch.cat([lips[:, 1:] - lips[:, :1], lower - upper], dim=1)
    height = ((gap * _across(along)).sum(-1, keepdim=True) / 2).clamp(min=THINNEST)
    return Openings(torch.cat([lips.mean(1, keepdim=True), (upper + lower) / 2], dim=1), along, width, height)


def opening_maps(driving: Tensor, source: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Maps of the parts that opened or closed since the source, by keypoints (B, K, 2) and (1 or B, K, 2).

    Returns:
        (B, 3, size, size) in [0, 1]: ellipses at their places in the driving face, as high as the larger opening of the
        two, and the stronger the more it changed. (B, 3, 1): whether each is of a part that opened.
    """
    now, before = openings_of(driving), openings_of(source)
    change = (now.height - before.height) / now.width  # (B, 3, 1)
    line = coordinate_grid(size, driving)[0, :, 0]
    u = _along(now.along / now.width, now.centre, line)
    v = _along(_across(now.along) / torch.maximum(now.height, before.height), now.centre, line)
    radius = torch.addcmul(u * u, v, v)
    return torch.tanh(SLOPE * change.abs())[..., None] * torch.exp(-radius.square()), change > 0


def _along(axis: Tensor, centre: Tensor, line: Tensor) -> Tensor:
    """Distance of each pixel from the centre (B, 3, 2) in direction of the axis (B, 3, 2): (B, 3, size, size)."""
    x, y = (axis[..., i, None] * (line - centre[..., i, None]) for i in (0, 1))  # (B, 3, size)
    return x[..., None, :] + y[..., None]


def _across(along: Tensor) -> Tensor:
    """The direction from the upper lip to the lower one."""
    return torch.stack([-along[..., 1], along[..., 0]], dim=-1)


class OpeningModulation(nn.Module):
    """Scales and shifts a feature where mouth and eyes open or close; starts at nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.opened = nn.Parameter(torch.zeros(PARTS, 2 * channels))
        self.closed = nn.Parameter(torch.zeros(PARTS, 2 * channels))

    def forward(self, x: Tensor, driving: Tensor, source: Tensor) -> Tensor:
        """Feature x (B, C, s, s), keypoints (B, K, 2) of the driving face and (1 or B, K, 2) of the source -> as x."""
        size = x.shape[-1]
        maps, opened = opening_maps(driving, source, size)
        maps = to_tokens(cast_for(self, maps))  # (B, s s, 3)
        scale, shift = (GAIN * torch.where(opened, self.opened, self.closed)).chunk(2, dim=2)  # (B, 3, C)
        scaled = to_image(maps @ scale, size).to(x.dtype)
        return torch.addcmul(x + to_image(maps @ shift, size), x, scaled)
