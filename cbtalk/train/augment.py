"""Random changes of training images that keep a pair consistent: what both frames show changes in both alike."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from cbtalk.train.draws import to_device
from cbtalk.train.sections import AugmentConfig

DEGRADED = 0.5  # share of the sources that are blurred, and of those compressed
RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
RGB_TO_YCBCR = ((0.299, 0.587, 0.114), (-0.1687, -0.3313, 0.5), (0.5, -0.4187, -0.0813))
BLOCK = 8  # of JPEG
# The luminance table of JPEG (ITU-T T.81, table K.1), quality 50; here of all three channels.
QUANTISATION = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


def draw(size: int, generator: torch.Generator) -> Tensor:
    """The random numbers (size, 13) in [0, 1] of `size` pairs, on the CPU: as many whatever is on."""
    return torch.rand(size, 13, generator=generator)


def augment(pair: Tensor, config: AugmentConfig, draws: Tensor) -> Tensor:
    """Pairs (2, B, 3, H, W) in [-1, 1], source first, by draws (B, 13) -> the same shape and range.

    Colour and geometry are one random choice for both frames of a pair; blur and compression are the source's alone.
    """
    symmetric = 2 * draws - 1
    if config.scale or config.shift or config.rotation:
        pair = move(pair, config, symmetric[:, :4])
    if config.brightness or config.contrast or config.saturation or config.hue or config.white_balance:
        pair = recolour(pair, config, symmetric[:, 4:11])
    source, driving = pair.unbind()
    if config.blur:
        source = blur(source, config.blur, draws[:, 11])
    if config.jpeg:
        source = compress(source, config.jpeg, draws[:, 12])
    return torch.stack([source, driving])


def move(pair: Tensor, config: AugmentConfig, draws: Tensor) -> Tensor:
    """Both frames of each pair scaled, turned and shifted by draws (B, 4) in [-1, 1]; mirrored at the border."""
    theta = to_device(_theta(config, draws), pair.device)
    grid = F.affine_grid(theta, list(pair.shape[1:]), align_corners=False)
    moved = F.grid_sample(
        pair.flatten(0, 1), grid.repeat(2, 1, 1, 1), mode="bicubic", padding_mode="reflection", align_corners=False
    )
    return moved.clamp(-1, 1).unflatten(0, pair.shape[:2])


def move_points(points: Tensor, config: AugmentConfig, draws: Tensor) -> Tensor:
    """Points (2, B, P, 2) of the frames moved by the draws of `augment`, 1 being the image's edge."""
    theta = _theta(config, 2 * draws[:, :4] - 1)
    inverse = torch.linalg.inv(theta[:, :, :2])
    inverse, shift = to_device(inverse, points.device), to_device(theta[:, :, 2], points.device)
    return (points - shift[:, None]) @ inverse.transpose(1, 2)


def _theta(config: AugmentConfig, draws: Tensor) -> Tensor:
    """(B, 2, 3): from places in the moved image to those in the given one, by draws (B, 4) in [-1, 1]."""
    size = (1 + config.scale) ** draws[:, 0]
    angle = math.radians(config.rotation) * draws[:, 1]
    cosine, sine = angle.cos() / size, angle.sin() / size
    shift = 2 * config.shift * draws[:, 2:4]  # the image is 2 wide
    return torch.stack([cosine, -sine, shift[:, 0], sine, cosine, shift[:, 1]], dim=1).view(-1, 2, 3)


def recolour(pair: Tensor, config: AugmentConfig, draws: Tensor) -> Tensor:
    """Both frames of each pair through one affine map of RGB, by draws (B, 7) in [-1, 1].

    Gains (white balance, brightness) keep black; saturation and hue keep luma; contrast keeps mid-grey.
    """
    yiq = torch.tensor(RGB_TO_YIQ)
    angle = 2 * math.pi * config.hue * draws[:, 0]
    chroma = 1 + config.saturation * draws[:, 1]
    turned = torch.zeros(len(draws), 3, 3)
    turned[:, 0, 0] = 1
    turned[:, 1, 1] = turned[:, 2, 2] = chroma * angle.cos()
    turned[:, 2, 1] = chroma * angle.sin()
    turned[:, 1, 2] = -turned[:, 2, 1]
    gains = (1 + config.brightness * draws[:, 2:3]) * (1 + config.white_balance * draws[:, 3:6])
    contrast = (1 + config.contrast * draws[:, 6]).view(-1, 1, 1)
    matrix = contrast * (torch.linalg.inv(yiq) @ turned @ yiq) * gains.unsqueeze(1)
    offset = matrix.sum(2) - contrast[:, 0]  # black is -1
    mapped = torch.einsum("bij,nbjhw->nbihw", to_device(matrix, pair.device), pair)
    return (mapped + to_device(offset, pair.device).view(1, -1, 3, 1, 1)).clamp(-1, 1)


def blur(image: Tensor, sigma: float, draws: Tensor) -> Tensor:
    """Gaussian blur of DEGRADED of the images (B, 3, H, W), of at most `sigma` pixels, by draws (B,) in [0, 1]."""
    radius = math.ceil(2 * sigma)
    offsets = torch.arange(-radius, radius + 1)
    sigmas = sigma * (draws / DEGRADED).clamp(min=1e-2, max=1)
    kernel = torch.exp(-(offsets**2) / (2 * sigmas.unsqueeze(1) ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, dim=0)[:, None, None]
    kernel = to_device(kernel, image.device)  # (3 B, 1, 1, taps)
    rows = F.pad(image, (radius,) * 4, mode="reflect").flatten(0, 1).unsqueeze(0)
    blurred = F.conv2d(F.conv2d(rows, kernel, groups=len(kernel)), kernel.transpose(2, 3), groups=len(kernel))
    return torch.where(_chosen(draws, image), blurred.view(image.shape), image)


def compress(image: Tensor, strength: float, draws: Tensor) -> Tensor:
    """JPEG's loss on DEGRADED of the images (B, 3, H, W), by draws (B,) in [0, 1].

    Args:
        strength: multiplies the quantisation table at most; 1 is quality 50, 0.5 quality 75.
    """
    height, width = image.shape[-2:]
    ycbcr, cosines = torch.tensor(RGB_TO_YCBCR), to_device(_cosines(), image.device)
    steps = strength * (draws / DEGRADED).clamp(min=1e-2, max=1).view(-1, 1, 1, 1, 1, 1)
    steps = to_device(steps * torch.tensor(QUANTISATION).view(BLOCK, 1, BLOCK) / 127.5, image.device)
    padded = F.pad(image, (0, -width % BLOCK, 0, -height % BLOCK), "reflect")
    levels = torch.einsum("ij,bjhw->bihw", to_device(ycbcr, image.device), padded)
    blocks = levels.unflatten(3, (-1, BLOCK)).unflatten(2, (-1, BLOCK))  # (B, 3, H / 8, 8, W / 8, 8)
    spectrum = torch.einsum("ui,vj,bchiwj->bchuwv", cosines, cosines, blocks)
    blocks = torch.einsum("ui,vj,bchuwv->bchiwj", cosines, cosines, (spectrum / steps).round() * steps)
    levels = blocks.flatten(2, 3).flatten(3, 4)[:, :, :height, :width]
    compressed = torch.einsum("ij,bjhw->bihw", to_device(torch.linalg.inv(ycbcr), image.device), levels).clamp(-1, 1)
    return torch.where(_chosen(draws, image), compressed, image)


def _chosen(draws: Tensor, image: Tensor) -> Tensor:
    return to_device(draws < DEGRADED, image.device).view(-1, 1, 1, 1)


def _cosines() -> Tensor:
    """The orthonormal discrete cosine transform of 8 values, one frequency a row."""
    place = torch.arange(BLOCK, dtype=torch.float64)
    rows = torch.cos(math.pi / BLOCK * (place + 0.5) * place.unsqueeze(1)) * math.sqrt(2 / BLOCK)
    rows[0] /= math.sqrt(2)
    return rows.float()
