"""Sharp and moving faces are told from blurred and still ones."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from cbtalk.prepare.options import PrepareOptions
from cbtalk.prepare.quality import Quality
from tests.helpers.photos import head

DEFAULTS = PrepareOptions()


def portrait(size: int = 256) -> Image.Image:
    return head(size)


def sharpness(image: Image.Image) -> float:
    quality = Quality()
    quality.add(np.asarray(image))
    return quality.sharpness


@pytest.mark.parametrize("size", [256, 512])
def test_blur_is_seen_at_any_size(size: int) -> None:
    image = portrait(size)
    assert sharpness(image) > DEFAULTS.min_sharpness
    assert sharpness(image.filter(ImageFilter.GaussianBlur(2.5 * size / 256))) < DEFAULTS.min_sharpness


def test_blur_is_seen_however_much_there_is() -> None:
    sharp, soft, *blurred = (
        sharpness(portrait().filter(ImageFilter.GaussianBlur(radius))) for radius in (0, 1, 2.5, 4, 8, 16, 32)
    )
    assert sharp > soft > max(blurred) and max(blurred) < DEFAULTS.min_sharpness


def test_an_image_enlarged_four_times_is_blurred() -> None:
    enlarged = portrait(64).resize((256, 256), Image.Resampling.BICUBIC)
    assert sharpness(enlarged) < DEFAULTS.min_sharpness


def test_nothing_to_see_is_not_sharp() -> None:
    assert sharpness(Image.new("RGB", (256, 256), (90, 90, 90))) == 0


def test_noise_and_a_moving_background_are_no_motion() -> None:
    random = np.random.default_rng(0)
    quality = Quality()
    for number in range(10):
        image = np.array(portrait())
        image[:, :20] = 25 * number
        quality.add((image + random.normal(0, 6, image.shape)).clip(0, 255).astype(np.uint8))
    assert quality.motion < DEFAULTS.min_motion


def test_a_head_that_sways_moves() -> None:
    quality = Quality()
    for number in range(10):
        quality.add(np.roll(np.array(portrait()), number % 4, axis=1))
    assert quality.motion > DEFAULTS.min_motion
