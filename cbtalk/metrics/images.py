"""Distances between images. All take (B, 3, H, W) in [-1, 1] and compare in [0, 1], clamped, in float32 at least."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cbtalk.metrics.metric import Metric, PairMetric
from cbtalk.model.blocks import full_precision

PERFECT = 1e-10  # mean squared difference below which PSNR stays at 100 dB, so that means stay finite
SSIM_SIGMA = 1.5
SSIM_RADIUS = 5
SSIM_C1 = 0.01**2
SSIM_C2 = 0.03**2
XYZ_OF_RGB = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
D65_WHITE = (0.95047, 1.0, 1.08883)


def unit_range(image: Tensor) -> Tensor:
    """[-1, 1] -> [0, 1], clamped."""
    return (full_precision(image) / 2 + 0.5).clamp(0, 1)


def l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of each image, (B,)."""
    return (unit_range(prediction) - unit_range(target)).abs().flatten(1).mean(1)


def psnr(prediction: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB, (B,): -10 log10 of its mean squared difference."""
    squared = (unit_range(prediction) - unit_range(target)).square().flatten(1).mean(1)
    return -10 * torch.log10(squared.clamp(min=PERFECT))


def ssim(prediction: Tensor, target: Tensor) -> Tensor:
    """Structural similarity of each image, (B,) (Wang et al. 2004).

    Gaussian window of 11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, range 1, biased variances, each of R, G and B on
    its own; mean over the places where the window lies inside the image, and over the channels.
    """
    x, y = unit_range(prediction), unit_range(target)
    mean_x, mean_y = _blur(x), _blur(y)
    var_x = _blur(x * x) - mean_x**2
    var_y = _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + SSIM_C1) / (mean_x**2 + mean_y**2 + SSIM_C1)
    structure = (2 * covariance + SSIM_C2) / (var_x + var_y + SSIM_C2)
    return (luminance * structure).flatten(1).mean(1)


def colour_shift(prediction: Tensor, target: Tensor) -> Tensor:
    """Distance of the mean colours of each image in CIE L*a*b*, (B,): images that pale, darken or take a tint."""
    return (_lab(prediction).mean((2, 3)) - _lab(target).mean((2, 3))).norm(dim=1)


def colour_spread(prediction: Tensor, target: Tensor) -> Tensor:
    """Distance of the standard deviations of L*, a* and b* of each image, (B,): contrast and saturation lost."""
    return (_lab(prediction).std((2, 3)) - _lab(target).std((2, 3))).norm(dim=1)


def _lab(image: Tensor) -> Tensor:
    """sRGB (B, 3, H, W) in [-1, 1] -> L*, a*, b* under D65."""
    rgb = unit_range(image)
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    matrix = torch.tensor(XYZ_OF_RGB, dtype=rgb.dtype, device=rgb.device)
    white = torch.tensor(D65_WHITE, dtype=rgb.dtype, device=rgb.device)
    xyz = torch.einsum("ij,bjhw->bihw", matrix / white[:, None], linear)
    x, y, z = torch.where(xyz > 0.008856, xyz.clamp(min=0.008856) ** (1 / 3), 7.787 * xyz + 16 / 116).unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def _blur(image: Tensor) -> Tensor:
    """Gaussian window (B, C, H, W) -> (B, C, H - 10, W - 10)."""
    offsets = torch.arange(-SSIM_RADIUS, SSIM_RADIUS + 1, dtype=image.dtype, device=image.device)
    line = torch.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    line = (line / line.sum()).expand(image.shape[1], 1, 1, -1)
    rows = F.conv2d(image, line, groups=image.shape[1])
    return F.conv2d(rows, line.transpose(2, 3), groups=image.shape[1])


METRICS: dict[str, Metric] = {
    "l1": PairMetric(l1),
    "psnr": PairMetric(psnr),
    "ssim": PairMetric(ssim),
    "colour_shift": PairMetric(colour_shift),
    "colour_spread": PairMetric(colour_spread),
}
