"""The hourglass network of the motion estimator."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbtalk.model.blocks import Conv3x3


class DownBlock(nn.Module):
    """conv3x3, batch norm, ReLU, 2 x 2 average pool."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Conv3x3(in_channels, out_channels)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / 2, W / 2)."""
        return F.avg_pool2d(F.relu(self.norm(self.conv(x))), kernel_size=2)


class UpBlock(nn.Module):
    """Nearest-neighbour upsampling by two, conv3x3, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Conv3x3(in_channels, out_channels, upsample=True)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', 2 H, 2 W)."""
        return F.relu(self.norm(self.conv(x)))


class HourglassEncoder(nn.Module):
    """The way down."""

    def __init__(self, in_channels: int, widths: list[int]) -> None:
        super().__init__()
        self.down_blocks = nn.ModuleList(
            DownBlock(a, b) for a, b in zip([in_channels, *widths[:-1]], widths, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """The input and every level below it, finest first."""
        levels = [x]
        for block in self.down_blocks:
            levels.append(block(levels[-1]))
        return levels


class HourglassDecoder(nn.Module):
    """The way up, with the skips."""

    def __init__(self, encoder_widths: list[int], widths: list[int]) -> None:
        super().__init__()
        # every level but the first receives its predecessor's output beside the skip of the same width
        inputs = [encoder_widths[-1], *(2 * width for width in widths[:-1])]
        self.up_blocks = nn.ModuleList(UpBlock(a, b) for a, b in zip(inputs, widths, strict=True))

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Every level, finest first -> the finest, of twice its decoder's width."""
        x = levels[-1]
        for block, skip in zip(self.up_blocks, reversed(levels[:-1]), strict=True):
            x = torch.cat([block(x), skip], dim=1)
        return x


class Hourglass(nn.Module):
    """Encoder and decoder with skips at every level; the last skip is the input itself."""

    def __init__(self, in_channels: int, expansion: int, blocks: int, max_channels: int) -> None:
        super().__init__()
        widths = [min(max_channels, expansion << i) for i in range(blocks + 1)]
        self.encoder = HourglassEncoder(in_channels, widths[1:])
        self.decoder = HourglassDecoder(widths[1:], widths[-2::-1])
        self.out_channels = widths[0] + in_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, `out_channels` = expansion + C, H, W)."""
        return self.decoder(self.encoder(x))
