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


def test_each_picture_on_its_own() -> None:
    picture = torch.rand(3, 3, 16, 16) * 2 - 1
    other = picture.clone()
    other[1] *= 0.5
    for metric in (l1, psnr, ssim, colour_shift, colour_spread):
        together = metric(picture, other)
        assert together.shape == (3,)
        assert together[1] == metric(picture[1:2], other[1:2])[0]
    assert ssim(picture, picture).sub(1).abs().max() < 1e-5


def test_ssim_is_scikit_images() -> None:
    skimage = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    picture, other = torch.rand(2, 1, 3, 40, 33) * 2 - 1
    arrays = [((x[0] + 1) / 2).permute(1, 2, 0).double().numpy() for x in (picture, other)]
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    _, full = skimage.structural_similarity(*arrays, channel_axis=2, full=True, **options)
    expected = np.mean(full[5:-5, 5:-5])  # where the window lies inside
    assert ssim(picture.double(), other.double()).item() == pytest.approx(expected, abs=1e-6)


def test_colours_are_those_of_scikit_image() -> None:
    color = pytest.importorskip("skimage.color", reason="scikit-image is not installed")
    picture, other = torch.rand(2, 1, 3, 16, 16, dtype=torch.float64) * 2 - 1
    lab, wanted = (color.rgb2lab(((x[0] + 1) / 2).permute(1, 2, 0).numpy()).reshape(-1, 3) for x in (picture, other))
    shift = np.linalg.norm(lab.mean(0) - wanted.mean(0))
    spread = np.linalg.norm(lab.std(0, ddof=1) - wanted.std(0, ddof=1))
    assert colour_shift(picture, other).item() == pytest.approx(shift, rel=1e-4)
    assert colour_spread(picture, other).item() == pytest.approx(spread, rel=1e-4)


def test_paler_pictures_shift_and_flatter_ones_spread_less() -> None:
    picture = torch.rand(1, 3, 16, 16) - 0.5
    assert colour_shift(picture + 0.2, picture).item() > 5 * colour_shift(picture * 0.9, picture).item()
    assert colour_spread(picture * 0.5, picture).item() > 5
