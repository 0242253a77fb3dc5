from fractions import Fraction

import numpy as np
import pytest

from cbtalk.media.video_reader import BadFrame
from cbtalk.render.driving import DrivingFrame, fill_gaps


def good(pts: int) -> DrivingFrame:
    return DrivingFrame(np.full((2, 2, 3), pts, np.uint8), pts, Fraction(1, 25))


def bad(pts: int | None = None, reason: str = "broken") -> BadFrame:
    return BadFrame(0, reason, pts)


def shown(frames: list[DrivingFrame | BadFrame], step: int = 10) -> list[tuple[int, int]]:
    """(time stamp, time stamp of the image shown)."""
    return [(frame.pts, int(frame.image[0, 0, 0])) for frame in fill_gaps(frames, step)]


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([good(0), good(7)], [(0, 0), (7, 7)]),
        ([good(0), bad(), good(20)], [(0, 0), (10, 0), (20, 20)]),
        ([good(0), bad(4), bad(6), good(20)], [(0, 0), (4, 0), (6, 0), (20, 20)]),
        # one unknown time among known ones: spread them all
        ([good(0), bad(4), bad(), good(30)], [(0, 0), (10, 0), (20, 0), (30, 30)]),
        # at the end, one step apart
        ([good(5), bad(), bad()], [(5, 5), (15, 5), (25, 5)]),
        # at the start the first good image stands in, and no time is negative
        ([bad(), bad(), good(15), good(25)], [(5, 15), (15, 15), (25, 25)]),
        # no room between the neighbours
        ([good(0), bad(), bad(), good(2)], [(0, 0), (1, 0), (2, 2)]),
        ([good(0), bad(), good(1)], [(0, 0), (1, 1)]),
        ([good(5), bad(3), bad(5), bad(9), good(7)], [(5, 5), (7, 7)]),
        ([bad(), bad()], []),
    ],
)
def test_gaps_are_filled_in_time(frames: list[DrivingFrame | BadFrame], expected: list[tuple[int, int]]) -> None:
    assert shown(frames) == expected


def test_held_frames_say_why() -> None:
    frames = list(fill_gaps([good(0), bad(reason="first"), bad(reason="second"), good(30)], 10))
    assert [frame.held for frame in frames] == [None, "first", "first", None]
