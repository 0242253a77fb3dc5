import numpy as np
import pytest
import torch

from cbtalk.metrics.images import colour_shift, colour_spread, l1, psnr, ssim


def test_values_worked_by_hand() -> None:
    black, grey = torch.full((1, 3, 16, 16), -1.0), torch.full((1, 3, 16, 16), -0.8)
    assert l1(grey, black).item() == pytest.approx(0.1)
    assert psnr(grey, black).item() == pytest.approx(20.0, abs=1e-4)
    assert ssim(grey, black).item() == pytest.approx(0.01**2 / (0.1**2 + 0.01**2), rel=1e-4)


def test_values_beyond_the_range_are_clamped() -> None:
    white = torch.ones(1, 3, 16, 16)
    assert l1(3 * white, white).item() == 0 and psnr(3 * white, white).item() == pytest.approx(100)


def test_each_image_on_its_own() -> None:
    image = torch.rand(3, 3, 16, 16) * 2 - 1
    other = image.clone()
    other[1] *= 0.5
    for metric in (l1, psnr, ssim, colour_shift, colour_spread):
        together = metric(image, other)
        assert together.shape == (3,)
        assert together[1] == metric(image[1:2], other[1:2])[0]
    assert ssim(image, image).sub(1).abs().max() < 1e-5


def test_ssim_is_scikit_images() -> None:
    skimage = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    image, other = torch.rand(2, 1, 3, 40, 33) * 2 - 1
    arrays = [((x[0] + 1) / 2).permute(1, 2, 0).double().numpy() for x in (image, other)]
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    _, full = skimage.structural_similarity(*arrays, channel_axis=2, full=True, **options)
    expected = np.mean(full[5:-5, 5:-5])  # where the window lies inside
    assert ssim(image.double(), other.double()).item() == pytest.approx(expected, abs=1e-6)


def test_colours_are_those_of_scikit_image() -> None:
    color = pytest.importorskip("skimage.color", reason="scikit-image is not installed")
    image, other = torch.rand(2, 1, 3, 16, 16, dtype=torch.float64) * 2 - 1
    lab, wanted = (color.rgb2lab(((x[0] + 1) / 2).permute(1, 2, 0).numpy()).reshape(-1, 3) for x in (image, other))
    shift = np.linalg.norm(lab.mean(0) - wanted.mean(0))
    spread = np.linalg.norm(lab.std(0, ddof=1) - wanted.std(0, ddof=1))
    assert colour_shift(image, other).item() == pytest.approx(shift, rel=1e-4)
    assert colour_spread(image, other).item() == pytest.approx(spread, rel=1e-4)


def test_paler_images_shift_and_flatter_ones_spread_less() -> None:
    image = torch.rand(1, 3, 16, 16) - 0.5
    assert colour_shift(image + 0.2, image).item() > 5 * colour_shift(image * 0.9, image).item()
    assert colour_spread(image * 0.5, image).item() > 5
