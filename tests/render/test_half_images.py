"""The images of the bundled weights in half precision, beside those in float32."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import cbtalk
from cbtalk.media.crop import CropBox, crop_resize
from cbtalk.model.checkpoint import BUNDLED
from cbtalk.render.engine import Engine
from cbtalk.render.motion_file import load_motion
from tests.helpers.photos import data
from tests.helpers.tiers import slow

MOMENTS = slice(None, 125, 50)  # of the demo


@pytest.fixture(scope="module")
def in_float32() -> NDArray[np.int16]:
    return demo(torch.float32)


def demo(dtype: torch.dtype) -> NDArray[np.int16]:
    """The demo at a few moments."""
    motion = load_motion(BUNDLED / "demo_motion.safetensors", fingerprint=None, num_keypoints=None)
    portrait = crop_resize(data.astronaut(), CropBox(112, 10, 240), 256)
    return Engine(cbtalk.load("mini", dtype=dtype), portrait).render(motion[MOMENTS]).images.astype(np.int16)


@pytest.mark.parametrize(
    ("dtype", "mean", "largest"), [(torch.bfloat16, 1, 3), *slow((torch.float16, 0.1, 1))], ids=["bfloat16", "float16"]
)
def test_images_are_those_of_float32(
    in_float32: NDArray[np.int16], dtype: torch.dtype, mean: float, largest: int
) -> None:
    difference = np.abs(demo(dtype) - in_float32)
    assert difference.mean() <= mean
    assert np.quantile(difference.max(axis=-1), 0.999) <= largest
    assert difference.any()  # it was another precision
