"""Warping a feature map by a flow, in plain torch: this defines what every other backend must compute."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cbtalk.reference.layout import in_layout_of

# A coordinate this far out misses the image under either mapping; clamping to it keeps what follows finite.
_FAR_OUTSIDE = 4.0


def flow_warp(
    feature: Tensor,  # (B, C, H, W)
    flow: Tensor,  # (B, h, w, 2) or (B, N, h, w, 2), (x, y) in [-1, 1]
    occlusion: Tensor | None = None,  # (B, 1, h', w')
    *,
    size: tuple[int, int] | None = None,
    align_corners: bool = True,
    padding: str = "zeros",
) -> Tensor:
    """Resize flow and occlusion to `size`, sample the feature at the flow, multiply by the occlusion.

    Arguments, result and rules are those of `cbtalk.ops.flow_warp`. Runs on any device and in any floating dtype:
    dtypes narrower than float32 are computed in float32 and rounded once at the end.
    """
    B, C = feature.shape[:2]
    Ho, Wo = feature.shape[2:] if size is None else size
    N = flow.shape[1] if flow.dim() == 5 else 1
    work = torch.promote_types(torch.promote_types(feature.dtype, flow.dtype), torch.float32)

    grid = _resize(flow.reshape(B * N, *flow.shape[-3:]).permute(0, 3, 1, 2).to(work), (Ho, Wo))
    grid = grid.permute(0, 2, 3, 1)  # (B*N, Ho, Wo, 2)
    finite = grid.isfinite().all(-1)  # (B*N, Ho, Wo)
    grid = torch.where(finite[..., None], grid, 0.0)
    if padding == "reflection":
        # The mirror images repeat every 4: this is exact, where the position of a large coordinate would be rounded.
        grid = grid - 4 * (grid / 4).round()
    grid = grid.clamp(-_FAR_OUTSIDE, _FAR_OUTSIDE)

    # The N flows of one source are stacked along the rows, so that the source is not repeated.
    warped = F.grid_sample(
        feature.to(work),
        grid.reshape(B, N * Ho, Wo, 2),
        mode="bilinear",
        padding_mode=padding,
        align_corners=align_corners,
    )
    warped = torch.where(finite.reshape(B, 1, N * Ho, Wo), warped, 0.0).unflatten(2, (N, Ho))  # (B, C, N, Ho, Wo)
    if occlusion is not None:
        warped = warped * _resize(occlusion.to(work), (Ho, Wo))[:, :, None]
    warped = warped.transpose(1, 2).reshape(B * N, C, Ho, Wo)
    warped = in_layout_of(feature, warped.to(feature.dtype))
    return warped.unflatten(0, (B, N)) if flow.dim() == 5 else warped


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, corner aligned. image (B, C, h, w) -> (B, C, *size)."""
    if image.shape[-2:] == torch.Size(size):
        return image
    return F.interpolate(image, size=size, mode="bilinear", align_corners=True)
