import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbtalk.errors import InputError
from cbtalk.media.crop import center_square, crop_resize
from cbtalk.options.places import CropBox, parse_crop
from tests.helpers.videos import quadrants

SIDES = st.integers(16, 90)


@given(SIDES, SIDES)
def test_center_square_is_the_largest_one_and_centred(width: int, height: int) -> None:
    box = center_square(width, height)
    assert box.size == min(width, height)
    assert abs(2 * box.x + box.size - width) <= 1
    assert abs(2 * box.y + box.size - height) <= 1


@given(st.integers(-999, 999), st.integers(-999, 999), st.integers(1, 999))
def test_parse_crop_reads_what_was_written(x: int, y: int, size: int) -> None:
    assert parse_crop(f"{x},{y},{size}") == CropBox(x, y, size)


@pytest.mark.parametrize("text", ["", "1,2", "1,2,3,4", "1,2,0", "1,2,-3", "a,b,c", "1.5,2,3", "1;2;3", "9" * 5000])
def test_parse_crop_refuses_the_rest_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match="x,y,size") as caught:
        parse_crop(text)
    assert "\n" not in str(caught.value)


@given(width=SIDES, height=SIDES, data=st.data(), size=st.integers(1, 80))
def test_a_box_inside_cuts_exactly_these_pixels(width: int, height: int, data: st.DataObject, size: int) -> None:
    side = data.draw(st.integers(1, min(width, height)))
    box = CropBox(data.draw(st.integers(0, width - side)), data.draw(st.integers(0, height - side)), side)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    cut = image[box.y : box.y + side, box.x : box.x + side]
    np.testing.assert_array_equal(crop_resize(image, box, side), cut)
    # Pixels outside the box must not be seen through the resize filter.
    np.testing.assert_array_equal(crop_resize(image, box, size), crop_resize(cut.copy(), CropBox(0, 0, side), size))


@given(width=SIDES, height=SIDES, data=st.data())
def test_a_box_reaching_out_repeats_the_edge(width: int, height: int, data: st.DataObject) -> None:
    side = data.draw(st.integers(1, 2 * max(width, height)))
    box = CropBox(data.draw(st.integers(1 - side, width - 1)), data.draw(st.integers(1 - side, height - 1)), side)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    out = crop_resize(image, box, side)
    assert out.flags.writeable  # torch warns of memory that is not
    assert out.shape == (side, side, 3) and out.dtype == np.uint8
    for row, column in ((0, 0), (side - 1, 0), (0, side - 1), (side // 2, side // 2)):
        y, x = min(max(box.y + row, 0), height - 1), min(max(box.x + column, 0), width - 1)
        np.testing.assert_array_equal(out[row, column], image[y, x])


@pytest.mark.parametrize(
    "box", [CropBox(64, 0, 8), CropBox(-8, 0, 8), CropBox(0, 48, 8), CropBox(0, 0, 129), CropBox(0, 0, 0)]
)
def test_a_box_that_misses_the_image_is_an_error(box: CropBox) -> None:
    with pytest.raises(InputError, match="64 x 48"):
        crop_resize(quadrants(), box, 32)


@pytest.mark.parametrize("factor", [2, 3, 5, 8])
def test_shrinking_averages_instead_of_picking_pixels(factor: int) -> None:
    board = (np.indices((32 * factor, 32 * factor)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = crop_resize(np.repeat(board[..., None], 3, axis=2), CropBox(0, 0, 32 * factor), 32)
    assert abs(small.astype(int) - 127).max() < 64


def test_orientation_and_position_survive_a_resize() -> None:
    small = crop_resize(quadrants(96, 96), CropBox(0, 0, 96), 24)
    assert small.flags.writeable
    corners = [tuple(small[y, x]) for y, x in ((2, 2), (2, 21), (21, 2), (21, 21))]
    assert corners == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
