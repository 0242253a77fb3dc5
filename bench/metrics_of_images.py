"""Metrics of images beside independent implementations."""

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import scipy.linalg
import skimage.color
import skimage.metrics
import torch
import torch.nn.functional as F
import torchmetrics
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.image import PeakSignalNoiseRatio
from torchmetrics.image.fid import FrechetInceptionDistance

from bench.metric_case import DRAWS, FLOAT32, FLOAT64, Array, Comparison, Draw
from cbtalk.metrics.frechet import Gaussian, frechet_distance
from cbtalk.metrics.images import colour_shift, colour_spread, l1, psnr, ssim
from cbtalk.pretrained.lpips import Lpips

PADDING = 5  # of SSIM's window


@cache
def images() -> list[tuple[Tensor, Tensor]]:
    """Pairs (1, 3, 96, 80) in [-1, 1]: smooth ones, and the same with noise."""
    draw = torch.Generator().manual_seed(0)
    found = []
    for number in range(DRAWS):
        coarse = torch.rand(1, 3, 6, 5, generator=draw) * 2 - 1
        smooth = F.interpolate(coarse, (96, 80), mode="bicubic", align_corners=False).clamp(-1, 1)
        noise = torch.randn(smooth.shape, generator=draw) * 0.05 * (1 + number)
        found.append((smooth, (smooth + noise).clamp(-1, 1)))
    return found


def by_torchmetrics(ours: Callable[[Tensor, Tensor], Tensor], make: Callable[[], torchmetrics.Metric]) -> Draw:
    """Images in [0, 1] for the other, in float64."""
    for one, other in images():
        metric = make().set_dtype(torch.float64)
        theirs = metric(*((part.double() / 2 + 0.5).contiguous() for part in (one, other)))
        yield ours(one, other).item(), float(theirs)


def by_scikit_image(one: Tensor, other: Tensor) -> tuple[Array, Array]:
    """Both as (H, W, 3) in [0, 1], float64."""
    first, second = ((part[0].permute(1, 2, 0).double() / 2 + 0.5).numpy() for part in (one, other))
    return first, second


def ssim_of_torchmetrics() -> Draw:
    """Mean over the places where the window lies inside; torchmetrics' own mean takes reflected edges, too."""
    for one, other in images():
        first, second = ((part.double() / 2 + 0.5) for part in (one, other))
        _, full = structural_similarity_index_measure(first, second, sigma=1.5, data_range=1.0, return_full_image=True)
        yield ssim(one, other).item(), full[..., PADDING:-PADDING, PADDING:-PADDING].mean().item()


def ssim_of_scikit_image() -> Draw:
    """Mean over the places where the window lies inside."""
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    for one, other in images():
        arrays = by_scikit_image(one, other)
        _, full = skimage.metrics.structural_similarity(*arrays, channel_axis=2, full=True, **options)
        yield ssim(one, other).item(), float(full[PADDING:-PADDING, PADDING:-PADDING].mean())


def colours(ours: Callable[[Tensor, Tensor], Tensor], statistic: Callable[[Array], Array]) -> Draw:
    """Distances of statistics of the Lab colours."""
    for one, other in images():
        first, second = (statistic(skimage.color.rgb2lab(part).reshape(-1, 3)) for part in by_scikit_image(one, other))
        yield ours(one, other).item(), float(np.linalg.norm(first - second))


def vgg_like() -> tuple[nn.Sequential, tuple[int, ...]]:
    """VGG16's layers with few channels, and the places behind which LPIPS compares."""
    layers: list[nn.Module] = []
    channels, taps = 3, []
    for width in (4, 4, 0, 5, 5, 0, 6, 6, 6, 0, 7, 7, 7, 0, 8, 8, 8, 0):
        if not width:
            taps.append(len(layers) - 1)
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()] if width else [nn.MaxPool2d(2, 2)]
        channels = width or channels
    return nn.Sequential(*layers), tuple(taps)


def alexnet_like() -> tuple[nn.Sequential, tuple[int, ...]]:
    """AlexNet's layers with few channels, and the places behind which LPIPS compares."""
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(4, 5, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(5, 6, 3, padding=1), nn.ReLU(),
        nn.Conv2d(6, 7, 3, padding=1), nn.ReLU(),
        nn.Conv2d(7, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
    )  # fmt: skip
    return layers, (1, 4, 7, 9, 11)


@torch.no_grad()
def lpips(network: str, make: Callable[[], tuple[nn.Sequential, tuple[int, ...]]]) -> Draw:
    """The published formula in float64, on a network of drawn weights."""
    torch.manual_seed(0)
    layers, taps = make()
    heads = [torch.rand(width) for width in (4, 5, 6, 7, 8)]
    ours = Lpips(network, dict(layers.state_dict()), heads)
    exact = layers.double()
    shift, scale = (torch.tensor(c).double()[:, None, None] for c in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)))

    def features(image: Tensor) -> Iterator[Tensor]:
        x = (image.double() - shift) / scale
        for place, layer in enumerate(exact):
            x = layer(x)
            if place in taps:
                yield x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)

    for one, other in images():
        pairs = zip(features(one), features(other), heads, strict=True)
        theirs = sum(((a - b).square() * head.double()[:, None, None]).sum(1).mean().item() for a, b, head in pairs)
        yield ours(one, other).item(), theirs


class AsIs(nn.Module):
    """In place of an Inception network: the image is the vector."""

    num_features = 24

    def forward(self, vectors: Tensor) -> Tensor:
        """(N, 24) -> the same."""
        return vectors


def vectors() -> Iterator[tuple[Array, Array]]:
    """Pairs of sets (80 and 60, 24) with other means and covariances."""
    rng = np.random.default_rng(1)
    for _ in range(DRAWS):
        mix = rng.normal(size=(24, 24)) / 5
        yield rng.normal(size=(80, 24)) + 0.4, rng.normal(size=(60, 24)) @ mix + rng.normal(size=24)


def gaussian(values: Array, times: int = 1) -> Gaussian:
    """Of vectors that come in two parts."""
    found = Gaussian()
    for part in np.array_split(values, 2):
        found.add(part, times)
    return found


def fid_of_torchmetrics() -> Draw:
    """The class that takes a network of its user's."""
    for one, other in vectors():
        metric = FrechetInceptionDistance(feature=AsIs()).set_dtype(torch.float64)
        metric.update(torch.from_numpy(one), real=True)
        metric.update(torch.from_numpy(other), real=False)
        yield frechet_distance(gaussian(other), gaussian(one)), float(metric.compute())


def fid_of_scipy(times: int) -> Draw:
    """As the released code computes it, with its `sqrtm`; each vector of the first set counted so often."""
    for one, other in vectors():
        repeated = np.repeat(one, times, axis=0)
        first, second = (np.cov(values, rowvar=False) for values in (repeated, other))
        root = np.real(scipy.linalg.sqrtm(first @ second))
        difference = repeated.mean(0) - other.mean(0)
        theirs = difference @ difference + np.trace(first) + np.trace(second) - 2 * np.trace(root)
        yield frechet_distance(gaussian(one, times), gaussian(other)), float(theirs)


IMAGES = [
    Comparison("L1", "torchmetrics", lambda: by_torchmetrics(l1, torchmetrics.MeanAbsoluteError), FLOAT32),
    Comparison("PSNR", "torchmetrics", lambda: by_torchmetrics(psnr, lambda: PeakSignalNoiseRatio(1.0)), FLOAT32),
    Comparison("SSIM", "torchmetrics", ssim_of_torchmetrics, FLOAT32),
    Comparison("SSIM", "scikit-image", ssim_of_scikit_image, FLOAT32),
    Comparison("colour shift", "scikit-image", lambda: colours(colour_shift, lambda lab: lab.mean(0)), FLOAT32),
    Comparison(
        "colour spread", "scikit-image", lambda: colours(colour_spread, lambda lab: lab.std(0, ddof=1)), FLOAT32
    ),
    Comparison("LPIPS-alex", "formula in float64", lambda: lpips("alex", alexnet_like), FLOAT32),
    Comparison("LPIPS-vgg", "formula in float64", lambda: lpips("vgg", vgg_like), FLOAT32),
    Comparison("FID", "torchmetrics", fid_of_torchmetrics, FLOAT64),
    Comparison("FID", "scipy's sqrtm", lambda: fid_of_scipy(1), FLOAT64),
    Comparison("FID against sources", "scipy's sqrtm, vectors repeated", lambda: fid_of_scipy(7), FLOAT64),
]
