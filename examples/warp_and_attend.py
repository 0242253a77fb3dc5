"""Aligns one image with another by a flow, and fills what it does not show from a codebook.

The target is the source, turned, with a hole. A flow and an occlusion are fitted to it; in the hole the image is what
attention to learned codes says. So the talking head works, where networks predict flow and occlusion from keypoints.

    python examples/warp_and_attend.py
"""

import argparse
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbtalk.nn import CodebookAttention, FlowWarp

SIZE = 32


def grid() -> Tensor:
    """The identity flow (1, SIZE, SIZE, 2): where each pixel is, (x, y) in [-1, 1]."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, SIZE), torch.linspace(-1, 1, SIZE), indexing="ij")
    return torch.stack([x, y], dim=-1)[None]


class Aligned(nn.Module):
    """A source under a flow, and where the occlusion hides it, what the codes have for a place."""

    def __init__(self, channels: int = 3, dim: int = 32, codes: int = 64) -> None:
        super().__init__()
        self.flow = nn.Parameter(grid()[:, ::4, ::4].clone())  # (1, 8, 8, 2), resized while it is read
        self.visible = nn.Parameter(torch.full((1, 1, SIZE, SIZE), 2.0))  # before the sigmoid
        self.position = nn.Parameter(0.1 * torch.randn(SIZE * SIZE, dim))
        self.codebook = nn.Parameter(torch.randn(codes, dim))
        self.warp = FlowWarp()
        self.attend = CodebookAttention(dim, heads=4)
        self.paint = nn.Linear(dim, channels)

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """source (1, C, SIZE, SIZE) -> an image of the same shape, and the share of it that the codes fill."""
        occlusion = self.visible.sigmoid()
        filling = self.paint(self.attend(self.position[None], self.codebook))  # (1, SIZE * SIZE, C)
        filling = filling.mT.unflatten(-1, (SIZE, SIZE))
        return self.warp(source, self.flow, occlusion) + (1 - occlusion) * filling, (1 - occlusion).mean()


def images() -> tuple[Tensor, Tensor]:
    """A smooth random source (1, 3, SIZE, SIZE) and the target made of it."""
    source = F.interpolate(torch.rand(1, 3, 6, 6), size=(SIZE, SIZE), mode="bicubic").clamp(0, 1)
    angle = math.radians(12)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    target = FlowWarp()(source, grid() @ turn * 0.8)
    target[..., 20:28, 4:12] = torch.rand(3, 1, 1)
    return source, target


def main() -> None:
    """Fits, and prints how well."""
    parser = argparse.ArgumentParser(description="Fits a flow and a codebook to a pair of images.")
    parser.add_argument("--steps", type=int, default=300)
    args = parser.parse_args()
    torch.manual_seed(0)
    source, target = images()
    model = Aligned()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    print(f"as it is: error {F.mse_loss(source, target):.1e}")
    for step in range(1, args.steps + 1):
        image, filled = model(source)
        error = F.mse_loss(image, target)
        optimizer.zero_grad()
        (error + 0.02 * filled).backward()  # what the source shows is to come from it
        optimizer.step()
        if step % max(args.steps // 3, 1) == 0:
            print(f"step {step}: error {error.item():.1e}, {100 * filled.item():.0f}% filled from the codes")


if __name__ == "__main__":
    main()
