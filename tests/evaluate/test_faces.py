import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cbtalk.evaluate.extractors import Extractors
from cbtalk.evaluate.faces import FaceStream, compare
from cbtalk.faces.similarity import laid_over


def image(level: int, size: int = 256) -> NDArray[np.uint8]:
    return np.full((size, size, 3), level, dtype=np.uint8)


def test_jitter_is_the_second_difference(extractors: Extractors) -> None:
    stream = FaceStream(extractors)
    for index, level in enumerate([10, 20, 40]):  # second difference 10
        stream.read(index, image(level))
    assert stream.jitter.values() == {"jitter_brightness": pytest.approx(10)}


def test_steady_motion_does_not_shake(extractors: Extractors) -> None:
    stream = FaceStream(extractors)
    for index in range(5):
        stream.read(index, image(10 + 7 * index))
    assert stream.jitter.values() == {"jitter_brightness": pytest.approx(0)}


@pytest.mark.parametrize(
    ("numbers", "levels"), [([0, 1, 3], [10, 20, 40]), ([0, 1, 2, 3], [10, 0, 90, 20])], ids=["a gap", "a lost face"]
)
def test_jitter_needs_three_frames_in_a_row(extractors: Extractors, numbers: list[int], levels: list[int]) -> None:
    stream = FaceStream(extractors)
    for index, level in zip(numbers, levels, strict=True):
        stream.read(index, image(level))
    assert stream.jitter.values() == {}


def test_images_without_a_face_are_counted(extractors: Extractors) -> None:
    stream = FaceStream(extractors)
    readings = [stream.read(index, image(level)) for index, level in enumerate([0, 30, 0])]
    assert stream.no_face == {"brightness": 2}  # once each, whatever else the extractor looks for
    assert compare(readings[0], readings[1], extractors) == {}


def test_comparison_worked_by_hand(extractors: Extractors) -> None:
    stream = FaceStream(extractors)
    figures = compare(stream.read(0, image(75)), stream.read(1, image(100)), extractors)
    points, target = (np.array([[level, 0], [0, 2 * level], [30, 30]]) for level in (75.0, 100.0))
    cosine = (75 * 100 + 100 * 100) / (np.hypot(75, 100) * np.hypot(100, 100))
    assert figures == pytest.approx(
        {
            "landmarks_brightness": 25,
            "landmarks_brightness_first": np.linalg.norm(laid_over(points, target) - target, axis=1)[0],
            "identity_brightness": cosine,
            "identity_distance_brightness": 25,
            "identity_same_brightness": 1,
            "akd_brightness": (25 + 50) / 6,
            "aed_brightness": 25**2,
            "pose_brightness": 25 / 3,
            "expression_brightness": 0.25,
        }
    )


@given(st.integers(0, 2**32 - 1), st.floats(-3, 3), st.floats(0.3, 3))
def test_faces_laid_over_each_other_keep_their_expression(seed: int, angle: float, scale: float) -> None:
    """Pose is taken away exactly; of what is left, the least squares fit leaves the least."""
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(6, 2)) * 20
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert np.allclose(laid_over(target @ turn.T + (7, -3), target), target, atol=1e-6)
    points = rng.normal(size=(6, 2)) * 20
    x, y = points.T
    one, none = np.ones(6), np.zeros(6)
    system = np.concatenate([np.column_stack([x, -y, one, none]), np.column_stack([y, x, none, one])])
    fit, *_ = np.linalg.lstsq(system, target.T.ravel(), rcond=None)
    assert np.allclose(laid_over(points, target), (system @ fit).reshape(2, 6).T, atol=1e-6)


def test_extractors_see_one_size() -> None:
    shapes = []

    class Recorder:
        name = "recorder"
        same_person = 0.0

        def identity(self, frame: NDArray[np.uint8]) -> None:
            shapes.append(frame.shape)

    for size in (64, 256, 300):
        FaceStream(Extractors(identity=[Recorder()])).read(0, image(9, size))
    assert shapes == [(256, 256, 3)] * 3
