"""Smoothing removes shaking and nothing else."""

import pytest
import torch
from torch import Tensor

from cbtalk.model.keypoints import Keypoints
from cbtalk.model.smooth import smooth

EVEN = torch.arange(40).double() / 25
UNEVEN = torch.tensor([0, 1, 2, 9, 10, 11, 12, 30, 31, 33, 34, 60, 61]).double() / 25


def run_of(line: Tensor) -> Keypoints:
    """Every number of three keypoints follows a line (T,), each by a factor of its own."""
    factors = torch.arange(1, 19).double()
    rows = line.double()[:, None] * factors
    return Keypoints(rows[:, :6].view(-1, 3, 2), rows[:, 6:].view(-1, 3, 2, 2))


@pytest.mark.parametrize("times", [EVEN, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("seconds", [0.01, 0.05, 0.3, 10])
def test_what_does_not_move_or_moves_evenly_is_kept_to_its_ends(times: Tensor, seconds: float) -> None:
    for line in (torch.ones_like(times), 3 - 2 * times):
        torch.testing.assert_close(smooth(run_of(line), times, seconds), run_of(line), rtol=1e-7, atol=1e-7)


def test_a_pulse_stays_where_it_is() -> None:
    pulse = torch.zeros(41)
    pulse[20] = 1
    times = torch.arange(41).double() / 25
    found = smooth(run_of(pulse), times, 0.08).value[:, 0, 0]
    torch.testing.assert_close(found, found.flip(0), rtol=0, atol=1e-12)
    assert found.argmax() == 20 and found.sum() == pytest.approx(1)
    spread = (found * (times - times[20]).square()).sum().sqrt()
    assert spread == pytest.approx(0.08, rel=0.01)  # the stated time constant


def test_time_runs_alike_both_ways() -> None:
    torch.manual_seed(0)
    line = torch.randn(len(UNEVEN))
    forth = smooth(run_of(line), UNEVEN, 0.1)
    back = smooth(run_of(line.flip(0)), (UNEVEN[-1] - UNEVEN).flip(0), 0.1)
    torch.testing.assert_close(forth, Keypoints(*(part.flip(0) for part in back)))


def test_the_constant_is_time_not_frames() -> None:
    """A wave at twice the frame rate is smoothed as much."""
    twice = torch.arange(160).double() / 50
    wave = [smooth(run_of(torch.sin(times * 20)), times, 0.06).value[:, 0, 0] for times in (twice[::2], twice)]
    torch.testing.assert_close(wave[0][10:-10], wave[1][::2][10:-10], rtol=0, atol=0.01)
    assert wave[0][10:-10].max() < 0.6


def test_shaking_is_less() -> None:
    torch.manual_seed(1)
    line = torch.sin(EVEN * 4) + 0.1 * torch.randn(len(EVEN))
    found = smooth(run_of(line), EVEN, 0.06).value[:, 0, 0]
    assert found.diff(n=2).square().mean() < 0.1 * line.diff(n=2).square().mean()


@pytest.mark.parametrize("frames", [1, 2])
def test_short_runs_and_no_smoothing_change_nothing(frames: int) -> None:
    torch.manual_seed(2)
    short = run_of(torch.randn(frames))
    torch.testing.assert_close(smooth(short, EVEN[:frames], 0.1), short)
    whole = Keypoints(torch.randn(40, 3, 2), torch.randn(40, 3, 2, 2))
    assert smooth(whole, EVEN, 0) is whole
    assert smooth(whole, EVEN, 0.1).jacobian.dtype == torch.float32
    assert smooth(whole, EVEN, 1e-6).value.equal(whole.value)  # no neighbour in reach
