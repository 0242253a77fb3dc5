"""Source features under a deformation."""

from collections.abc import Callable

import torch
from torch import Tensor

from cbtalk.model.blocks import resize
from cbtalk.ops import flow_warp


def warp(feature: Tensor, deformation: Tensor, occlusion: Tensor | None = None, *, size: int | None = None) -> Tensor:
    """A source feature (1 or B, C, s, s) under a deformation (B, h, h, 2), times the occlusion (B, 1, h, h).

    Returns (B, C, size, size), of the feature's own size where none is given.
    """
    if feature.shape[0] == 1:  # asked of the feature alone: exported, the batch may be of any size
        feature = feature.expand(deformation.shape[0], -1, -1, -1)
    return flow_warp(feature, deformation, occlusion, size=None if size is None else (size, size))


class WarpedFeature:
    """A source feature (1 or B, C, s, s) under a deformation (B, h, h, 2), warped only where it is read."""

    def __init__(self, feature: Tensor, deformation: Tensor) -> None:
        self.feature = feature
        self.deformation = deformation
        self._known: Tensor | None = None

    def _whole(self) -> Tensor:
        if self._known is None:  # not a cached_property, whose lock torch.compile does not trace
            self._known = warp(self.feature, self.deformation)
        return self._known

    def resized(self, size: int, pixelwise: Callable[[Tensor], Tensor]) -> Tensor:
        """`pixelwise` of the warped feature, then resized to (B, C', size, size), bilinear, corner aligned.

        Reducing reads two rows and two columns of the larger image for each of the smaller. Where that is not nearly
        all of them, the others are not even warped.
        """
        larger = self.feature.shape[-1]
        if larger <= 2 * size:
            return resize(pixelwise(self._whole()), size)
        position = torch.arange(size, dtype=self.deformation.dtype, device=self.deformation.device)
        position = position * ((larger - 1) / max(size - 1, 1))
        low = position.long().clamp(max=larger - 2)
        taps = torch.stack([low, low + 1], dim=1).flatten()  # (2 size,)
        flow = resize(self.deformation.permute(0, 3, 1, 2), larger)[:, :, taps][..., taps].permute(0, 2, 3, 1)
        read = pixelwise(warp(self.feature, flow, size=2 * size))
        share = (position - low).to(read.dtype)
        read = torch.lerp(read[:, :, 0::2], read[:, :, 1::2], share[:, None])
        return torch.lerp(read[..., 0::2], read[..., 1::2], share).contiguous(memory_format=torch.channels_last)
