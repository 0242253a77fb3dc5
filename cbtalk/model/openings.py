"""Maps of how much further mouth and eyes are open, or closed, than in the source; they modulate the generator.

A warped source has nothing to show between lips that it has closed, and its features do not say that they opened. The
maps are drawn from keypoints that training guides there.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from cbtalk.model.blocks import cast_for
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


def opening_maps(driving: Tensor, source: Tensor, size: int) -> Tensor:
    """Keypoints (B, K, 2) and (1 or B, K, 2) -> maps (B, 6, size, size) in [0, 1]: what opened, then what closed.

    Each is an ellipse at its place in the driving face: as high as the opening there, or as it was in the source.
    """
    now, before = openings_of(driving), openings_of(source)
    change = (now.height - before.height) / now.width  # (B, 3, 1)
    offset = coordinate_grid(size, driving) - now.centre[:, :, None, None]  # (B, 3, size, size, 2)
    u, v = ((offset * axis[:, :, None, None]).sum(-1) for axis in (now.along, _across(now.along)))
    maps = []
    for height, strength in ((now.height, change), (before.height, -change)):
        radius = (u / now.width[..., None]).square() + (v / height[..., None]).square()
        maps.append(torch.tanh(SLOPE * strength.relu())[..., None] * torch.exp(-radius.square()))
    return torch.cat(maps, dim=1)


def _across(along: Tensor) -> Tensor:
    """The direction from the upper lip to the lower one."""
    return torch.stack([-along[..., 1], along[..., 0]], dim=-1)


class OpeningModulation(nn.Module):
    """Scales and shifts a feature where mouth and eyes open or close; starts at nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * PARTS, 2 * channels, kernel_size=1, bias=False)
        nn.init.zeros_(self.conv.weight)

    def forward(self, x: Tensor, driving: Tensor, source: Tensor) -> Tensor:
        """Feature x (B, C, s, s), keypoints (B, K, 2) of the driving face and (1 or B, K, 2) of the source -> as x."""
        maps = cast_for(self.conv, opening_maps(driving, source, x.shape[-1]))
        scale, shift = (GAIN * self.conv(maps.contiguous(memory_format=torch.channels_last))).chunk(2, dim=1)
        return torch.addcmul(x + shift, x, scale.to(x.dtype))
