"""The animated square comes back to where it was cut from, and nothing else of the photo changes."""

import numpy as np
import pytest
from numpy.typing import NDArray

from cbtalk.faces import Square, cut
from cbtalk.render.paste import Paste, colour_difference

H, W, S = 240, 320, 128
UNCHANGED = np.zeros((S, S, 3), np.float32)
SQUARES = [
    Square(160, 120, 100),
    Square(161.3, 119.6, 100.7),
    Square(150.2, 118.9, 97.3, 31.0),
    Square(170, 110, 60, -40.0),  # smaller than the model's image: shrunk
    Square(160, 120, 61.5),
    Square(40.5, 30.5, 110),  # reaches out on two sides
    Square(300, 215, 90, 20.0),
    Square(160, 120, 400, 10.0),  # larger than the photo
    Square(0.4, 120, 5),
]


def photo() -> NDArray[np.uint8]:
    """Soft, coloured and different everywhere."""
    y, x = np.mgrid[:H, :W]
    waves = [np.sin(x / 13 + k) * np.cos(y / 17 - k) for k in range(3)]
    return np.asarray(128 + 90 * np.stack(waves, axis=-1)).astype(np.uint8)


def outside(square: Square) -> NDArray[np.bool_]:
    """(H, W): pixels whose centres do not lie in a square."""
    y, x = np.mgrid[:H, :W] + 0.5
    angle = np.radians(square.angle)
    across = np.cos(angle) * (x - square.x) + np.sin(angle) * (y - square.y)
    down = np.cos(angle) * (y - square.y) - np.sin(angle) * (x - square.x)
    return np.maximum(abs(across), abs(down)) >= square.side / 2


def with_paste(paste: Paste, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    result = photo()
    paste.box.of(result)[:] = paste(photo(), image)
    return result


@pytest.mark.parametrize("square", SQUARES)
def test_what_was_cut_out_comes_back_in_its_place(square: Square) -> None:
    image = photo()
    result = with_paste(Paste(H, W, square, UNCHANGED), cut(image, square, S)).astype(int)
    error = np.square(result - image)[~outside(square)].mean() if not outside(square).all() else 0
    assert error < 2.5  # 44 dB
    assert abs((result - image)[~outside(square)].mean()) < 0.3


@pytest.mark.parametrize("square", SQUARES)
def test_outside_the_square_every_bit_is_the_photos(square: Square) -> None:
    paste = Paste(H, W, square, UNCHANGED)
    image = photo()
    for seed in range(2):
        animated = np.random.default_rng(seed).integers(0, 256, (S, S, 3), dtype=np.uint8)
        result = with_paste(paste, animated)
        assert np.array_equal(result[outside(square)], image[outside(square)])
        assert square.side < 10 or not np.array_equal(result, image)
    assert np.array_equal(image, photo())  # the photo itself is not written to


def test_the_middle_is_the_result_alone_and_the_rim_fades() -> None:
    red = np.full((S, S, 3), (200, 0, 0), np.uint8)
    square = Square(160, 120, 100)
    result = with_paste(Paste(H, W, square, UNCHANGED), red)
    assert (result[90:150, 130:190] == (200, 0, 0)).all()
    row = np.abs(result[120, 105:135].astype(int) - (200, 0, 0)).sum(axis=1)
    assert row[0] > 50 and (np.diff(row[5:18]) <= 12).all()


@pytest.mark.parametrize("angle", [0.0, 25.0])
def test_colours_are_matched_at_the_rim(angle: float) -> None:
    """A model that darkens, and more so on one side, leaves no seam."""
    square = Square(160, 120, 100, angle)
    wanted = cut(photo(), square, S)
    darker = (wanted * 0.85 - np.linspace(0, 12, S)[None, :, None]).clip(0, 255).astype(np.uint8)
    colours = colour_difference(wanted, darker)
    with_them = with_paste(Paste(H, W, square, colours), darker).astype(int) - photo()
    without = with_paste(Paste(H, W, square, UNCHANGED), darker).astype(int) - photo()
    inside = ~outside(square)
    assert abs(with_them[inside].mean()) < 0.2 * abs(without[inside].mean())
    assert np.abs(np.gradient(colours, axis=(0, 1))).max() < 1  # level from pixel to pixel: light, not edges


def test_a_true_reconstruction_has_no_difference_of_colours() -> None:
    wanted = cut(photo(), Square(160, 120, 100), S)
    assert not colour_difference(wanted, wanted).any()
