"""Maps of how much further mouth and eyes are open, or closed, than in the source; they modulate the generator.

A warped source has nothing to show between lips that it has closed, and its features do not say that they opened. The
maps are drawn from keypoints that training guides there.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from cbtalk.model.blocks import cast_for, to_image, to_tokens
from cbtalk.model.keypoints import coordinate_grid

# The keypoints that `cbtalk.train.face_points` guides there; slices, since numbers would be copied to the device.
MOUTH_CORNERS, UPPER_LIDS, LOWER_LIDS, PUPILS, LIPS = (slice(first, first + 2) for first in (0, 2, 4, 6, 12))

PARTS = 3  # mouth, left eye, right eye
MOUTH = 0.4  # half of a mouth's width, in distances of its corners
EYE = 0.2  # half of an eye's width, in distances of the pupils
THINNEST = 0.012  # half of the height of a closed one, 1 being half of the image
SLOPE = 4.0  # of a map's strength, by the change of height in widths
OPEN_EYE, CLOSED_EYE = 0.23, 0.15  # an eye's height over its width; narrow ones that are open have no more than 0.23
GAIN = 128.0  # Adam's steps are equally long for all parameters; those that start at zero need more


class Openings(NamedTuple):
    """Mouth and eyes of faces as ellipses."""

    centre: Tensor  # (B, 3, 2) in [-1, 1]
    along: Tensor  # (B, 3, 2): direction of the width, of length 1
    width: Tensor  # (B, 3, 1): half of it
    height: Tensor  # (B, 3, 1): half of it


def openings_of(points: Tensor) -> Openings:
    """Mouth and eyes between the lips and the lids, by keypoints (B, K, 2)."""
    corners, lips = points[:, MOUTH_CORNERS], points[:, LIPS]
    upper, lower, pupils = points[:, UPPER_LIDS], points[:, LOWER_LIDS], points[:, PUPILS]
    mouth, eye = MOUTH * (corners[:, 1:] - corners[:, :1]), EYE * (pupils[:, 1:] - pupils[:, :1])
    along = torch.cat([mouth, eye, eye], dim=1)
    width = along.norm(dim=-1, keepdim=True).clamp(min=THINNEST)
    along = along / width
    gap = torch.cat([lips[:, 1:] - lips[:, :1], lower - upper], dim=1)
    height = ((gap * _across(along)).sum(-1, keepdim=True) / 2).clamp(min=THINNEST)
    return Openings(torch.cat([lips.mean(1, keepdim=True), (upper + lower) / 2], dim=1), along, width, height)


class Changes(NamedTuple):
    """Mouth and eyes that opened or closed since the source, as ellipses in the driving face."""

    centre: Tensor  # (B, 3, 2) in [-1, 1]
    along: Tensor  # (B, 3, 2): direction of the width, over half of it
    across: Tensor  # (B, 3, 2): direction of the height, over half of the larger one
    strength: Tensor  # (B, 3, 1) in [0, 1)
    opened: Tensor  # (B, 3, 1): True for a part that opened


def changes_of(driving: Tensor, source: Tensor) -> Changes:
    """The changes from the source's keypoints (1 or B, K, 2) to the driving ones (B, K, 2)."""
    now, before = openings_of(driving), openings_of(source)
    change = (now.height - before.height) / now.width
    opened = change > 0
    strength = torch.tanh(SLOPE * change.abs()) * torch.where(opened, _lacking(before), 1)
    across = _across(now.along) / torch.maximum(now.height, before.height)
    return Changes(now.centre, now.along / now.width, across, strength, opened)


def _lacking(source: Openings) -> Tensor:
    """Share (B, 3, 1) of an opened part that the source does not show: an eye that is open there has its own iris."""
    eyes = ((OPEN_EYE - source.height / source.width) / (OPEN_EYE - CLOSED_EYE)).clamp(0, 1)
    return torch.cat([torch.ones_like(eyes[:, :1]), eyes[:, 1:]], dim=1)


def opening_maps(changes: Changes, size: int) -> Tensor:
    """(B, 3, size, size) in [0, 1]: an ellipse where each part opened or closed, the stronger the more it did."""
    line = coordinate_grid(size, changes.centre)[0, :, 0]
    u, v = (_along(axis, changes.centre, line) for axis in (changes.along, changes.across))
    radius = torch.addcmul(u * u, v, v)
    return changes.strength[..., None] * torch.exp(-radius.square())


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

    def forward(self, x: Tensor, maps: Tensor, opened: Tensor) -> Tensor:
        """Feature (B, C, s, s), its `opening_maps` (B, 3, s, s), and which opened (B, 3, 1) -> a feature like it."""
        tokens = to_tokens(cast_for(self, maps))  # (B, s s, 3)
        weight = GAIN * torch.where(opened, self.opened, self.closed)  # (B, 3, 2 C)
        scale, shift = (to_image(tokens @ half, x.shape[-1]) for half in weight.chunk(2, dim=2))
        return torch.addcmul(x + shift, x, scale.to(x.dtype))
