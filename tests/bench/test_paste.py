"""The coordinates in which `bench.paste` compares."""

import numpy as np
import pytest

pytest.importorskip("skimage.data", reason="scikit-image, whose photos the benchmark uses, is not installed")

from bench.paste import covered, within
from cbtalk.faces import Square, cut

SIZE = 128


@pytest.mark.parametrize("found", [Square(150, 130, 100), Square(155, 122, 110, 20.0), Square(149, 133, 105, -35.0)])
def test_a_square_is_the_same_by_way_of_another(found: Square) -> None:
    y, x = np.mgrid[:260, :300]
    image = np.stack([128 + 90 * np.sin(x / 15 + k) * np.cos(y / 19) for k in range(3)], axis=-1).astype(np.uint8)
    place = Square(150, 130, 90, 12.0)
    view = within(place, found, SIZE)
    pixels = covered(view, (0, SIZE), SIZE)
    by_way = cut(cut(image, found, SIZE), view, SIZE).astype(int)
    assert np.abs(by_way - cut(image, place, SIZE))[pixels].mean() < 1
    assert 0.7 < pixels.mean() < 1 or found.angle == 0
    inner = covered(view, (20, SIZE - 20), SIZE)
    assert inner.sum() < pixels.sum() and not (inner & ~pixels).any()
