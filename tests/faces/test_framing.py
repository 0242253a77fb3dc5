"""The square of a face of any size, place and rotation, and the pixels inside it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from cbtalk.faces import Square, cut, find_faces, frame
from tests.helpers.photos import HEAD, coffee, head
from tests.helpers.tiers import slow

SIDE = HEAD[2]


def the_square(image: NDArray[np.uint8]) -> Square:
    (face,) = find_faces(torch.from_numpy(image).permute(2, 0, 1))
    return frame(image, face)


def photo_with_the_head(side: int, x: int, y: int, angle: float) -> NDArray[np.uint8]:
    """A photograph with the head in it: a square of this side, turned clockwise by `angle` about its centre (x, y)."""
    photo = coffee(1280, 720)
    square = head(side).convert("RGBA")
    turned = square.rotate(-angle, expand=True, resample=Image.Resampling.BICUBIC)
    photo.paste(turned, (x - turned.width // 2, y - turned.height // 2), turned)
    return np.array(photo)


@pytest.mark.parametrize("angle", [0.0, 25.0, *slow(10.0, -14.0, -38.0, 38.0)])
@pytest.mark.parametrize(("side", "x", "y"), [(160, 300, 200), (480, 800, 360)])
def test_the_square_follows_the_face(side: int, x: int, y: int, angle: float) -> None:
    known = the_square(np.array(head()))
    found = the_square(photo_with_the_head(side, x, y, angle))
    scale = side / SIDE
    centre = Square(x, y, side, angle).point(known.x / SIDE, known.y / SIDE)
    assert math.dist((found.x, found.y), centre) < 0.06 * known.side * scale
    assert found.side == pytest.approx(known.side * scale, rel=0.06)
    if abs(angle) < 10:
        assert found.angle == 0
    elif abs(angle) > 20:
        assert abs(found.angle - angle) < 5 + 4  # the head itself is tilted by about 5 degrees, which counts as upright


def test_points_of_a_square_turn_clockwise_about_its_centre() -> None:
    square = Square(10.0, 20.0, 4.0, 90.0)
    assert square.point(0.5, 0.5) == pytest.approx((10.0, 20.0))
    assert square.point(0.0, 0.0) == pytest.approx((12.0, 18.0))
    assert square.point(1.0, 0.0) == pytest.approx((12.0, 22.0))


@settings(max_examples=30, deadline=None)
@given(left=st.integers(0, 40), top=st.integers(0, 30), size=st.integers(2, 30))
def test_a_square_of_whole_pixels_is_a_slice(left: int, top: int, size: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 70, 3), dtype=np.uint8)
    found = cut(image, Square(left + size / 2, top + size / 2, size), size)
    assert np.array_equal(found, image[top : top + size, left : left + size])


def test_a_quarter_turn_is_a_rotated_slice() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 70, 3), dtype=np.uint8)
    found = cut(image, Square(30.0, 30.0, 20.0, 90.0), 20)
    assert np.array_equal(found, np.rot90(image[20:40, 20:40]))


def test_the_image_is_reflected_where_the_square_leaves_it() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    found = cut(image, Square(0.0, 4.0, 8.0), 8)
    assert np.array_equal(found[:, 4:], image[:, :4])
    assert np.array_equal(found[:, :4], image[:, 3::-1])


def test_shrinking_averages_instead_of_skipping() -> None:
    stripes = np.zeros((256, 256, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    small = cut(stripes, Square(128.0, 128.0, 256.0), 32)
    assert np.abs(small[1:-1, 1:-1].astype(int) - 127).max() < 10
