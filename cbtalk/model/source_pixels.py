"""The warped source's own pixels, mixed into the image where the flow fits.

They are as sharp and as bright as the photo; what the generator draws passed through its bottleneck.
"""

import torch
from torch import Tensor, nn

from cbtalk.model.blocks import NarrowConv2d, full_precision


class SourcePixels(nn.Module):
    """Mixes the warped source into the generator's image, by a mask of its last feature; half of each at the start."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mask = NarrowConv2d(channels, 1, kernel_size=3)
        nn.init.zeros_(self.mask.weight)
        assert self.mask.bias is not None
        nn.init.zeros_(self.mask.bias)

    def forward(self, feature: Tensor, image: Tensor, warped: Tensor, changed: Tensor | None) -> Tensor:
        """Image and warped source (B, 3, H, W) -> (B, 3, H, W).

        Args:
            feature: (B, C, H, W), of which the image was made.
            changed: (B, P, H, W) in [0, 1], maps of parts that the source shows otherwise, an open mouth closed.
        """
        image = full_precision(image)
        mask = torch.sigmoid(full_precision(self.mask(feature)))
        if changed is not None:
            mask = mask * (1 - changed.amax(dim=1, keepdim=True))
        return image + mask * (warped - image)
