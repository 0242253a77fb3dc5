"""The patch discriminator (`net_d`) of adversarial training."""

from itertools import pairwise

from torch import Tensor, nn

from cbtalk.model.config import TalkerConfig

STRIDED_LAYERS = 4
LEAK = 0.2


class PatchDiscriminator(nn.Module):
    """Scores each of an image's overlapping patches; no activation at the end.

    Six 4 x 4 convolutions, the first four of stride 2; batch norm in the middle ones.
    """

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__()
        nf = config.discriminator_nf
        widths = [nf, *(nf << level for level in range(1, STRIDED_LAYERS)), nf << (STRIDED_LAYERS - 1)]
        layers: list[nn.Module] = [nn.Conv2d(3, nf, kernel_size=4, stride=2, padding=1), nn.LeakyReLU(LEAK)]
        for position, (width, out_width) in enumerate(pairwise(widths), start=1):
            stride = 2 if position < STRIDED_LAYERS else 1
            layers += [
                nn.Conv2d(width, out_width, kernel_size=4, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(out_width),
                nn.LeakyReLU(LEAK),
            ]
        layers.append(nn.Conv2d(widths[-1], 1, kernel_size=4, stride=1, padding=1))
        self.main = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> scores (B, 1, h, w)."""
        return self.main(image)
