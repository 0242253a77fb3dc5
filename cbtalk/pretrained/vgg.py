"""VGG16 and VGG19 up to relu5_1, from local files."""

import re
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbtalk.errors import WeightsError
from cbtalk.pretrained.model_files import read_tensors

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
STAGES = 5
POOL_GAP = 3  # convolutions stand two indices apart (ReLU between) or, with a pooling between, three


class VggFeatures(nn.Module):
    """relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1 of VGG16 or VGG19, frozen.

    Args:
        weights: `<index>.weight` and `<index>.bias` by the index of the layer in torchvision's `features`.
    """

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        indices = sorted(int(name.removesuffix(".weight")) for name in weights if name.endswith(".weight"))
        self.convolutions = nn.ModuleList()
        self.pooled: list[bool] = []  # per convolution: does a max pooling precede it?
        previous = indices[0]
        while sum(self.pooled) < STAGES - 1:  # the last layer that counts is the first behind the fourth pooling
            index = indices[len(self.pooled)]
            self.pooled.append(index - previous == POOL_GAP)
            self.convolutions.append(_frozen_convolution(weights[f"{index}.weight"], weights[f"{index}.bias"]))
            previous = index
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) in [-1, 1], normalised without moving them to [0, 1], as published."""
        x = (image - self.mean) / self.std
        features = []
        for position, (convolution, pooled) in enumerate(zip(self.convolutions, self.pooled, strict=True)):
            x = F.relu(convolution(F.max_pool2d(x, 2) if pooled else x))
            if pooled or position == 0:
                features.append(x)
        return features


def read_vgg(path: Path) -> dict[str, Tensor]:
    """The convolutions of a VGG file as `<index>.weight` and `<index>.bias`, float32."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; perceptual.weights must name VGG16 or VGG19 weights")
    found = {name.removeprefix("features."): value for name, value in read_tensors(path).items()}
    weights = {name: value.float() for name, value in found.items() if re.fullmatch(r"\d+\.(weight|bias)", name)}
    indices = sorted(int(name.removesuffix(".weight")) for name in weights if name.endswith(".weight"))
    pools = sum(after - before == POOL_GAP for before, after in pairwise(indices))
    if not indices or indices[0] != 0 or pools != STAGES - 1:
        raise WeightsError(
            f"{path}: not the features of VGG16 or VGG19 (with entries such as `0.weight` or `features.0.weight`)"
        )
    return weights


def _frozen_convolution(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    out_channels, in_channels, height, _ = weight.shape
    convolution = nn.Conv2d(in_channels, out_channels, height, padding=height // 2)
    convolution.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
    convolution.bias = nn.Parameter(bias, requires_grad=False)
    return convolution
