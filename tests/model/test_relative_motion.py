import pytest
import torch

from cbtalk.errors import InputError
from cbtalk.model.keypoints import Keypoints, inverse_2x2
from cbtalk.model.relative_motion import hull_areas, hull_scale, power, relative_keypoints


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


def some(count: int, seed: int) -> Keypoints:
    generator = torch.Generator().manual_seed(seed)
    jacobian = torch.eye(2) + 0.3 * torch.randn(count, 5, 2, 2, generator=generator)
    return Keypoints(torch.randn(count, 5, 2, generator=generator), jacobian)


def test_strength_is_none_today_and_twice() -> None:
    source, initial, driving = some(1, 0), some(1, 1), some(4, 2)
    plain = relative_keypoints(source, driving, initial)
    for one, other in zip(relative_keypoints(source, driving, initial, strength=1), plain, strict=True):
        assert torch.equal(one, other)
    for one, part in zip(relative_keypoints(source, driving, initial, strength=0), source, strict=True):
        assert torch.equal(one, part.expand_as(one))
    twice = relative_keypoints(source, driving, initial, strength=2)
    torch.testing.assert_close(twice.value - source.value, 2 * (plain.value - source.value))
    change = driving.jacobian @ inverse_2x2(initial.jacobian)
    torch.testing.assert_close(twice.jacobian, change @ change @ source.jacobian)


@pytest.mark.parametrize("exponent", [0, 0.3, 1, 1.5, 2])
def test_powers_of_any_matrix_are_finite_and_fold_nothing(exponent: float) -> None:
    angle = torch.linspace(-torch.pi, torch.pi, 9)
    turns = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=-1).view(-1, 2, 2)
    flat, mirror = torch.zeros(1, 2, 2), torch.diag(torch.tensor([1.0, -1.0]))[None]
    assert power(torch.cat([turns, flat, mirror]), exponent).isfinite().all()
    shrinks = torch.diag(torch.tensor([0.05, 0.5]))
    assert (torch.linalg.eigvals(power(shrinks, exponent)).real > 0).all()
    half = torch.tensor(torch.pi / 6)
    turn = torch.tensor([[half.cos(), -half.sin()], [half.sin(), half.cos()]])
    turned = power(turn, exponent)
    assert torch.atan2(turned[1, 0], turned[0, 0]).item() == pytest.approx(exponent * torch.pi / 6, abs=0.02)
