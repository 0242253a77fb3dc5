"""YuNet, a face detector of 74 thousand weights.

Wu, Peng and Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research, 2023.
Architecture and weights are those of `yunet_n_320_320.onnx`; `yunet.md` has origin and licence.
"""

from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

STRIDES = (8, 16, 32)
CPU = torch.device("cpu")
WEIGHTS = Path(__file__).with_name("yunet.safetensors")


class Candidates(NamedTuple):
    """The network's outputs for every cell of its three grids, M in all; lengths in pixels of its input."""

    scores: Tensor  # (B, M) in [0, 1]
    boxes: Tensor  # (B, M, 4): left, top, right, bottom
    points: Tensor  # (B, M, 5, 2): eyes, nose, corners of the mouth, as (x, y); the image's left ones first


class YuNet(nn.Module):
    """The network: RGB images (B, 3, H, W) of 0 to 255 -> Candidates; H and W are multiples of 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), _separable(16, 16), nn.ReLU())
        stages = ((16, 16, 64, 64, 64), (64, 64, 64), (64, 64, 64), (64, 64, 64))
        self.stages = nn.ModuleList(_stage(widths) for widths in stages)
        self.laterals = nn.ModuleList(nn.Sequential(_separable(64, 64), nn.ReLU()) for _ in STRIDES)
        self.heads = nn.ModuleList(_Head() for _ in STRIDES)

    def forward(self, images: Tensor) -> Candidates:
        """The outputs for every cell of the three grids, the coarsest grid first."""
        x = self.stem(images.flip(1))  # it was trained on BGR
        levels = [x := stage(F.max_pool2d(x, 2)) for stage in self.stages][1:]  # strides 8, 16, 32
        above: Tensor | None = None
        found: list[Candidates] = []
        for i in (2, 1, 0):
            level = levels[i] if above is None else levels[i] + F.interpolate(above, scale_factor=2.0, mode="nearest")
            above = self.laterals[i](level)
            found.append(_decode(self.heads[i](above), STRIDES[i]))
        return Candidates(*(torch.cat(parts, 1) for parts in zip(*found, strict=True)))


class _Head(nn.Module):
    """(B, 64, h, w) -> (B, 16, h, w): class, objectness, box (4), points (10)."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Sequential(_separable(64, 64), nn.ReLU())
        self.outputs = nn.ModuleList(_separable(64, width) for width in (1, 1, 4, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(x)
        return torch.cat([output(x) for output in self.outputs], 1)


def _separable(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.Conv2d(outputs, outputs, 3, 1, 1, groups=outputs))


def _stage(widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [_separable(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers)


def _decode(maps: Tensor, stride: int) -> Candidates:
    """Candidates of one level from its maps (B, 16, h, w): offsets from the cell's corner, in strides."""
    h, w = maps.shape[2:]
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    corner = torch.stack((columns, rows), -1).flatten(0, 1).to(maps)  # (h * w, 2) as (x, y)
    cells = maps.flatten(2).transpose(1, 2)  # (B, h * w, 16)
    scores = cells[..., :2].sigmoid().prod(-1).sqrt()
    centre, size = cells[..., 2:4] + corner, cells[..., 4:6].exp()
    boxes = torch.cat((centre - size / 2, centre + size / 2), -1) * stride
    points = (cells[..., 6:].unflatten(-1, (5, 2)) + corner[:, None]) * stride
    return Candidates(scores, boxes, points)


@cache
def yunet(device: torch.device = CPU) -> YuNet:
    """The network with its weights on a device, for inference; fastest on channels_last images."""
    network = YuNet()
    network.load_state_dict(load_file(WEIGHTS))
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval().requires_grad_(False)
