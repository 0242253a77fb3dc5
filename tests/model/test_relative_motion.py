import pytest
import torch

from cbtalk.errors import InputError
from cbtalk.model.keypoints import Keypoints, inverse_2x2
from cbtalk.model.relative_motion import hull_areas, hull_scale, relative_keypoints


def keypoints(points: list[tuple[float, float]]) -> Keypoints:
    value = torch.tensor([points], dtype=torch.float64)
    return Keypoints(value, torch.eye(2, dtype=torch.float64).expand(1, len(points), 2, 2))


SQUARE = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.5, 0.5), (0.5, 0.0), (0.0, 0.0)]


def test_hull_area_counts_the_outline_only() -> None:
    torch.testing.assert_close(hull_areas(keypoints(SQUARE).value), torch.ones(1, dtype=torch.float64))
    triangle = keypoints([(0.0, 0.0), (2.0, 0.0), (0.0, 3.0), (0.1, 0.1)])
    torch.testing.assert_close(hull_areas(triangle.value), torch.full((1,), 3.0, dtype=torch.float64))


def test_adapted_scale_is_the_ratio_of_sizes() -> None:
    twice = keypoints([(2 * x - 1, 2 * y) for x, y in SQUARE])
    torch.testing.assert_close(hull_scale(twice, keypoints(SQUARE)), torch.full((1,), 2.0, dtype=torch.float64))
    moved = relative_keypoints(twice, keypoints([(x + 0.1, y) for x, y in SQUARE]), keypoints(SQUARE), adapt_scale=True)
    expected = twice.value + torch.tensor([0.2, 0.0], dtype=torch.float64)
    torch.testing.assert_close(moved.value, expected)


def test_keypoints_on_a_line_cannot_adapt_the_scale() -> None:
    line = keypoints([(0.0, 0.0), (0.5, 0.0), (1.0, 0.0)])
    with pytest.raises(InputError, match="scale"):
        hull_scale(keypoints(SQUARE[:3]), line)


def test_inverse() -> None:
    matrix = torch.randn(5, 3, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(inverse_2x2(matrix), torch.linalg.inv(matrix))
    assert not inverse_2x2(torch.zeros(1, 2, 2)).isfinite().any()
