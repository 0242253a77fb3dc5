"""LPIPS (Zhang et al. 2018, version 0.1) from local files; nothing is downloaded and torchvision is not needed."""

from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbtalk.errors import WeightsError
from cbtalk.model.blocks import full_precision
from cbtalk.pretrained.model_files import find_file, read_tensors

# Of ImageNet's colours, for images in [-1, 1], as published with the heads.
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
NORM_FLOOR = 1e-10
POOL_GAP = 3  # indices between convolutions with a ReLU and a pooling between them; 2 with a ReLU alone

# Indices in torchvision's `features` of the convolutions whose rectified outputs are compared; the pooling's window.
TAPS = {"alex": (0, 3, 6, 8, 10), "vgg": (2, 7, 14, 21, 28)}
POOL = {"alex": 3, "vgg": 2}
FILES = {
    "alex": (("alexnet*.npz", "alexnet*.pth"), ("lpips*alex.pth", "alex.pth")),
    "vgg": (("vgg16*.npz", "vgg16*.pth"), ("lpips*vgg.pth", "vgg.pth")),
}
SMALLEST_SIDE = 32  # pixels: less does not outlast AlexNet's poolings


class Lpips(nn.Module):
    """LPIPS distance of images.

    Args:
        network: "alex" or "vgg".
        features: `<index>.weight` and `<index>.bias` of the network's convolutions by torchvision's index.
        heads: (C,) for each compared layer.
    """

    def __init__(self, network: str, features: dict[str, Tensor], heads: list[Tensor]) -> None:
        super().__init__()
        self._taps, self._pool = TAPS[network], POOL[network]
        indices = sorted({int(name.split(".")[0]) for name in features})
        self._indices = [index for index in indices if index <= self._taps[-1]]
        self._pooled = {after for before, after in pairwise(self._indices) if after - before == POOL_GAP}
        for name, value in features.items():
            self.register_buffer(name.replace(".", "_"), value.float())
        self.heads = nn.ParameterList(nn.Parameter(head.float(), requires_grad=False) for head in heads)
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(B,): distances of images (1 or B, 3, H, W) in [-1, 1], clamped, of 32 pixels a side or more."""
        return self.compare(self.features(prediction), self.features(target))

    def compare(self, prediction: list[Tensor], target: list[Tensor]) -> Tensor:
        """(B,): distances of images by their features, for whoever needs those of an image more than once."""
        pairs = zip(prediction, target, self.heads, strict=True)
        return torch.stack([torch.einsum("bchw,c->bhw", (x - y) ** 2, w).mean((1, 2)) for x, y, w in pairs]).sum(0)

    def features(self, image: Tensor) -> list[Tensor]:
        """Compared layers (B, C, h, w), each place's C numbers of length one."""
        x = (full_precision(image).clamp(-1, 1) - self.shift) / self.scale
        layers = []
        for index in self._indices:
            x = F.max_pool2d(x, self._pool, 2) if index in self._pooled else x
            weight, bias = self.get_buffer(f"{index}_weight"), self.get_buffer(f"{index}_bias")
            large = weight.shape[-1] == 11  # AlexNet's first
            x = F.conv2d(x, weight, bias, 4 if large else 1, 2 if large else weight.shape[-1] // 2).relu_()
            if index in self._taps:
                layers.append(x / (x.norm(dim=1, keepdim=True) + NORM_FLOOR))
        return layers


def find_lpips(models: Path | None, network: str) -> Lpips:
    """LPIPS with the files of the folder `models`: the network's features (.npz or .pth) and the published heads.

    Raises:
        FileNotFoundError: a file is not there.
        WeightsError: a file is there and cannot be used.
    """
    features_path, heads_path = (find_file(models, *patterns) for patterns in FILES[network])
    features, heads = read_tensors(features_path), read_tensors(heads_path)
    features = {name.removeprefix("features."): value for name, value in features.items()}
    features = {name: value for name, value in features.items() if name.split(".")[0].isdigit()}
    try:
        weights = [heads[f"lin{number}.model.1.weight"].flatten() for number in range(len(TAPS[network]))]
    except KeyError as error:
        raise WeightsError(f"{heads_path}: not the heads of LPIPS-{network} ({error} is not in it)") from error
    channels = [features.get(f"{index}.weight", torch.empty(0)).shape[0] for index in TAPS[network]]
    if channels != [len(head) for head in weights]:
        raise WeightsError(f"{features_path}: does not fit the heads of LPIPS-{network} in {heads_path}")
    return Lpips(network, features, weights).eval()
