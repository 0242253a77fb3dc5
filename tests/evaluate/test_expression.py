import numpy as np
import pytest

from cbtalk.evaluate.expression import Expression
from cbtalk.evaluate.extractors import Extractors
from cbtalk.evaluate.faces import FaceStream


def course(extractors: Extractors, levels: list[int], real: list[int]) -> Expression:
    """The expression of images of these brightnesses; `Brightness` says a mouth is open by the level."""
    expression = Expression(extractors)
    streams = FaceStream(extractors), FaceStream(extractors)
    for number, pair in enumerate(zip(levels, real, strict=True)):
        images = (np.full((256, 256, 3), level, dtype=np.uint8) for level in pair)
        expression.add(*(stream.read(number, image) for stream, image in zip(streams, images, strict=True)))
    return expression


def test_a_mouth_that_opens_half_as_far_at_the_right_time(extractors: Extractors) -> None:
    real = [10, 50, 90, 30, 70]
    expression = course(extractors, [20 + level // 2 for level in real], real)
    deviation = float(np.std(real)) / 100
    assert expression.of_real() == {"opening_mouth_brightness": pytest.approx(deviation)}
    assert expression.of_result() == {
        "opening_mouth_brightness": pytest.approx(deviation / 2),
        "following_mouth_brightness": pytest.approx(1),
    }


def test_a_mouth_that_stays_as_it_is_follows_nothing(extractors: Extractors) -> None:
    figures = course(extractors, [40, 40, 40], [10, 50, 90]).of_result()
    assert figures == {"opening_mouth_brightness": 0, "following_mouth_brightness": 0}


def test_what_hardly_moves_in_the_real_clip_has_no_correlation(extractors: Extractors) -> None:
    assert list(course(extractors, [10, 50, 90], [40, 40, 41]).of_result()) == ["opening_mouth_brightness"]


def test_images_without_a_face_are_left_out(extractors: Extractors) -> None:
    assert course(extractors, [10, 0, 30, 50], [10, 90, 30, 0]).of_real() == {
        "opening_mouth_brightness": pytest.approx(0.1)
    }
    assert course(extractors, [0], [0]).of_result() == {}
