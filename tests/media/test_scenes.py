"""Scene cuts are found where another shot begins, and nowhere else."""

from collections.abc import Iterator

import numpy as np

from cbtalk.media.images import Image8
from cbtalk.media.scenes import SceneCuts


def cuts(frames: Iterator[Image8]) -> list[int]:
    detector = SceneCuts()
    return [number for number, frame in enumerate(frames) if detector(frame)]


def shot(seed: int, frames: int = 20, *, pan: int = 0, noise: int = 0) -> Iterator[Image8]:
    """Views of a landscape of blurred blocks of random colours."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (12, 40, 3))
    landscape = blocks.repeat(20, axis=0).repeat(20, axis=1)
    for number in range(frames):
        view = landscape[:, number * pan : number * pan + 320]
        yield (view + random.integers(-noise, noise + 1, view.shape)).clip(0, 255).astype(np.uint8)


def joined(*shots: Iterator[Image8]) -> Iterator[Image8]:
    for one in shots:
        yield from one


def test_another_shot_is_a_cut() -> None:
    assert cuts(joined(shot(1, noise=9), shot(2, noise=9), shot(3, noise=9))) == [20, 40]


def test_a_cut_right_after_another() -> None:
    assert cuts(joined(shot(1), shot(2, 2), shot(3))) == [20, 22]


def test_a_pan_and_noise_are_none() -> None:
    assert cuts(joined(shot(1, pan=3, noise=20))) == []


def test_something_large_before_the_camera_is_none() -> None:
    def covered() -> Iterator[Image8]:
        for number, frame in enumerate(shot(1)):
            if 8 <= number < 12:
                frame[:, :140] = 30
            yield frame

    assert cuts(covered()) == []


def test_a_fade_is_none() -> None:
    def fading() -> Iterator[Image8]:
        for number, frame in enumerate(shot(4, 40)):
            yield (frame * (1 - number / 39)).astype(np.uint8)

    assert cuts(fading()) == []


def test_frames_of_any_size() -> None:
    small = np.zeros((3, 5, 3), np.uint8)
    assert cuts(iter([small, small, np.full((70, 9, 3), 255, np.uint8)])) == [2]
