"""A square that follows a face goes where the face goes, and neither lags, nor shakes, nor jumps to what is none."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cbtalk.faces import Face, Find, Square, fixed_square, following, people_of, resting

Curve = NDArray[np.float64]
TIMES = np.arange(0, 5, 0.12)
FRAMES = np.arange(0, 5, 0.04)


def find(time: float, x: float, y: float = 300.0, size: float = 100.0) -> Find:
    """A face whose box has its centre at (x, y)."""
    box = torch.tensor([x - size / 2, y - size / 2, x + size / 2, y + size / 2])
    return Find(float(time), Face(box, 0.9, torch.zeros(5, 2)))


def places(finds: list[Find]) -> Curve:
    path = following(finds)
    return np.array([path.at(time)[:3] for time in FRAMES])


def offset() -> float:
    """From the centre of a box to the centre of its square."""
    return fixed_square([find(0, 0.0).face]).x


@pytest.mark.parametrize("speed", [0.0, -150.0, 900.0])
def test_a_face_that_moves_evenly_is_followed_exactly_through_gaps_and_false_finds(speed: float) -> None:
    finds = [find(time, speed * time) for time in TIMES]
    finds[20] = find(TIMES[20], speed * TIMES[20] + 300)
    finds[21] = find(TIMES[21], speed * TIMES[21], size=180)
    del finds[28:35]
    path = places(finds)
    assert np.abs(path[:, 0] - offset() - speed * FRAMES).max() < 0.1
    assert np.ptp(path[:, 2]) < 0.1


def test_noise_of_the_finds_is_smoothed_away() -> None:
    noise = np.random.default_rng(0).normal(0, 2, (3, len(TIMES)))
    finds = [find(time, x, 300 + y, 100 + size) for time, x, y, size in zip(TIMES, *noise, strict=True)]
    path = places(finds)
    assert (path.std(0) < (0.9, 0.9, 0.9)).all()
    assert np.abs(np.diff(path, 2, axis=0)).mean() < 0.03


def test_a_turn_is_neither_early_nor_late() -> None:
    finds = [find(time, 200 * abs(time - 2.52)) for time in TIMES]
    x = places(finds)[:, 0]
    assert FRAMES[x.argmin()] == pytest.approx(2.52, abs=0.05)
    assert np.abs(x - offset() - 200 * np.abs(FRAMES - 2.52)).max() < 60


def test_size_is_followed_more_slowly_than_place() -> None:
    finds = [find(time, 0.0, size=100.0 if time < 2.5 else 115.0) for time in TIMES]
    side = places(finds)[:, 2]
    assert (np.diff(side) > -0.01).all() and side[-1] / side[0] == pytest.approx(1.15, rel=0.02)
    assert np.ptp(side[50:75]) < 0.5 * (side[-1] - side[0])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_finds_are_a_path(count: int) -> None:
    finds = [find(time, 10 * time) for time in TIMES[:count]]
    path = following(finds)
    assert path.at(0.0).x == pytest.approx(offset(), abs=0.1)
    assert path.at(100.0) == path.at(101.0)


def test_a_resting_square_rests() -> None:
    assert {resting(Square(1.0, 2.0, 3.0)).at(time) for time in (-1.0, 0.0, 7.0)} == {Square(1.0, 2.0, 3.0)}


def test_a_person_lost_and_found_elsewhere_is_one_and_who_is_there_meanwhile_another() -> None:
    walker = [find(time, 100 + 80 * time) for time in TIMES if not 2 < time < 3]
    sitter = [find(time, 900, 100) for time in TIMES[5:30]]
    passer = [find(time, 500, 50, size=20) for time in TIMES if 2.2 < time < 2.7]
    frames = [[found for found in walker + sitter + passer if found.time == time] for time in TIMES]
    frames = [[face for face in frame if not 3 < face.time < 3.1] for frame in frames]
    people = people_of(frames)
    assert [len(person) for person in people] == [len(walker) - 0, len(sitter), len(passer)]
    assert all(a is b for a, b in zip(people[0], walker, strict=True))
