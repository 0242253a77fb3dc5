"""A part of an image converted in its place is the same, to the bit, as the whole image converted."""

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from cbtalk.media.yuv import Surroundings, ToYuv, ToYuvInPlace


def noise(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def planes(frame: av.VideoFrame) -> NDArray[np.uint8]:
    return np.array(frame.to_ndarray(), np.uint8)


@pytest.mark.parametrize(
    ("size", "left", "top", "part"),
    [
        ((300, 402), 101, 53, (81, 97)),
        ((300, 402), 100, 52, (80, 96)),
        ((300, 402), 0, 0, (64, 33)),
        ((300, 402), 400, 299, (1, 2)),
        ((300, 402), 0, 0, (300, 402)),
        ((301, 403), 350, 290, (11, 53)),
        ((64, 48), 9, 3, (5, 7)),
    ],
)
def test_only_the_part_is_converted(size: tuple[int, int], left: int, top: int, part: tuple[int, int]) -> None:
    image = noise(*size, seed=0)
    in_place = ToYuvInPlace(Surroundings(image, left, top), part[1], part[0])
    for seed in (1, 2, 3):
        inserted = noise(*part, seed=seed)
        image[top : top + part[0], left : left + part[1]] = inserted
        assert np.array_equal(planes(in_place(inserted)), planes(ToYuv()(image)))


def test_a_frame_that_is_still_held_is_not_written_over() -> None:
    in_place = ToYuvInPlace(Surroundings(noise(40, 40, 0), 10, 10), 8, 8)
    first = in_place(noise(8, 8, 1))
    before = planes(first)
    in_place(noise(8, 8, 2))
    assert np.array_equal(planes(first), before)
