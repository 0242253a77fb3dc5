"""A motion that is known as a whole: cut, smoothed, looped."""

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cbtalk.errors import InputError
from cbtalk.media.span import Span
from cbtalk.model.keypoints import Keypoints
from cbtalk.options.render import Loop
from cbtalk.render.motion_changes import cut, looped, smoothed
from cbtalk.render.motion_file import Motion

K = 3
FILE = Path("motion.safetensors")
UNEVEN = [0, 10, 20, 50, 60, 62, 64, 90, 100, 130, 140, 145, 160, 200]  # hundredths of a second


def motion_of(values: Tensor, pts: list[int] | None = None, last_duration: int | None = 4) -> Motion:
    """All keypoints at (value, value), their jacobians turned by it; hundredths of a second, 25 frames a second."""
    values = values.float()
    turn = torch.stack([values.cos(), -values.sin(), values.sin(), values.cos()], dim=-1).view(-1, 1, 2, 2)
    keypoints = Keypoints(values[:, None, None].repeat(1, K, 2), turn.repeat(1, K, 1, 1))
    times = torch.tensor(pts if pts is not None else list(range(0, 4 * len(values), 4)))
    return Motion(keypoints, times, Fraction(1, 100), Fraction(25), last_duration)


def values(motion: Motion) -> Tensor:
    return motion.keypoints.value[:, 0, 0]


def steps(motion: Motion) -> Tensor:
    """(T,): how far the motion goes from each frame to the next, and from the last to the first."""
    value, jacobian = motion.keypoints
    return torch.cat([value.flatten(1), jacobian.flatten(1)], dim=1).diff(dim=0).norm(dim=1)


def closing_step(motion: Motion) -> Tensor:
    value, jacobian = motion.keypoints
    both = torch.cat([value.flatten(1), jacobian.flatten(1)], dim=1)
    return (both[-1] - both[0]).norm()


@pytest.mark.parametrize("loop", ["ping-pong", "cross-fade"])
@pytest.mark.parametrize("pts", [None, UNEVEN], ids=["even", "uneven"])
def test_a_loop_closes(loop: Loop, pts: list[int] | None) -> None:
    """A motion that ends far from where it began, without standing still anywhere."""
    count = len(pts or range(50))
    motion = motion_of(torch.linspace(0, 1, count), pts, last_duration=10 if pts else 4)
    period = looped(motion, loop, 0.5)
    assert closing_step(period) <= steps(period).max() * 1.001
    assert period.pts[0] == 0 and (period.pts.diff() > 0).all() and period.last_duration
    assert closing_step(motion) > 3 * steps(motion).max()


def test_ping_pong_shows_the_turning_frames_once() -> None:
    period = looped(motion_of(torch.arange(4), [3, 5, 6, 10], last_duration=50), "ping-pong", 0.5)
    assert values(period).tolist() == [0, 1, 2, 3, 2, 1]
    assert period.pts.tolist() == [0, 2, 3, 7, 11, 12]
    assert period.last_duration == 2  # as long as from the first to the second
    for frames in (1, 2):
        still = motion_of(torch.arange(frames))
        assert looped(still, "ping-pong", 0.5) is still


def test_a_cross_fade_takes_its_time_and_leaves_the_rest_alone() -> None:
    motion = motion_of(torch.sin(torch.arange(50) / 7))
    period = looped(motion, "cross-fade", 0.4)
    assert period.frames == 40 and period.pts.tolist() == list(range(0, 160, 4))
    torch.testing.assert_close(values(period)[:31], values(motion)[10:41])  # behind the first 0.4 s
    weight = 0.5  # in the middle of the fade, 0.2 s before the end
    torch.testing.assert_close(values(period)[35], weight * (values(motion)[45] + values(motion)[5]))
    with pytest.raises(InputError, match="too short for a cross-fade"):
        looped(motion, "cross-fade", 1.1)


def test_a_part_is_what_is_shown_then() -> None:
    motion = motion_of(torch.arange(10), last_duration=30)
    part = cut(FILE, motion, Span.of(0.1, 0.12))
    assert values(part).tolist() == [2, 3, 4, 5] and part.pts.tolist() == [0, 2, 6, 10] and part.last_duration == 2
    end = cut(FILE, motion, Span.of(0.36, None))
    assert values(end).tolist() == [9] and end.last_duration == 30
    stays = cut(FILE, motion, Span.of(0.5, 0.1))
    assert (stays.pts.tolist(), stays.last_duration) == ([0], 10)
    assert cut(FILE, motion, Span()) is motion
    for start in (0.66, 7):
        with pytest.raises(InputError, match=r"motion\.safetensors: cannot start at .* ends at 0\.66 s"):
            cut(FILE, motion, Span.of(start, None))


def test_smoothing_goes_by_the_time_stamps() -> None:
    line = motion_of(torch.tensor(UNEVEN) / 50, UNEVEN)
    found = smoothed(line, 0.2)
    torch.testing.assert_close(found.keypoints.value, line.keypoints.value)
    assert found.pts is line.pts and found.last_duration == line.last_duration
    pulse = torch.zeros(21)
    pulse[10] = 1
    found = smoothed(motion_of(pulse), 0.05)
    torch.testing.assert_close(values(found), values(found).flip(0))
    assert 0.1 < values(found).max() < 0.5
