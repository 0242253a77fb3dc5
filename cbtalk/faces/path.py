"""The square of a face over time: at rest, or following the face through the image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial.polynomial import polyfit
from numpy.typing import NDArray

from cbtalk.faces.framing import Square, around
from cbtalk.faces.track import Find

PLACE_SECONDS = 0.3  # standard deviation of the Gaussian that smooths where the square is
SIDE_SECONDS = 1.0  # and how large

Values = NDArray[np.float64]

_END_SECONDS = 1.0  # at each end of a path, which tell how it goes on
_NEIGHBOURS = 3  # finds to each side that say where a face should be
_FARTHEST = 0.25  # from there, in sides
_MOST_GROWN = 0.25  # against the size there, as a difference of logarithms


@dataclass(frozen=True)
class SquarePath:
    """An upright square that moves straight from one place to the next, at rest before the first and after the last.

    times (N,): seconds, rising; squares (N, 3): x and y of the centre and the side, in pixels of the image.
    """

    times: Values
    squares: Values

    def at(self, time: float) -> Square:
        """The square at a time in seconds."""
        return Square(*(float(np.interp(time, self.times, column)) for column in self.squares.T))


def resting(square: Square) -> SquarePath:
    """The path of an upright square that stays where it is."""
    return SquarePath(np.zeros(1), np.array([[square.x, square.y, square.side]]))


def following(finds: Sequence[Find]) -> SquarePath:
    """The path that frames a face over its finds, which are in time order: smooth, and without lag.

    Finds far from what their neighbours say are left out, gaps are crossed in straight lines, and place and side are
    smoothed by Gaussians of PLACE_SECONDS and SIDE_SECONDS, the side as its logarithm. A Gaussian has zero phase, and
    as the path goes on at both ends as it came, a face that moves evenly passes unchanged.
    """
    if len(finds) == 1:
        return resting(around(finds[0].face))
    times = np.array([find.time for find in finds])
    squares = np.array([around(find.face)[:3] for find in finds])
    squares[:, 2] = np.log(squares[:, 2])
    kept = _plausible(squares)
    grid = np.linspace(times[0], times[-1], len(times))
    rate = (len(grid) - 1) / (times[-1] - times[0])
    columns = (
        _smoothed(np.interp(grid, times[kept], column), seconds * rate, max(1, round(_END_SECONDS * rate)))
        for column, seconds in zip(squares[kept].T, (PLACE_SECONDS, PLACE_SECONDS, SIDE_SECONDS), strict=True)
    )
    smooth = np.stack(list(columns), axis=1)
    # One step on at each end, for the frames before the next that would have been looked at.
    smooth, grid = (_continued(values, 1, values[0], values[-1]) for values in (smooth, grid))
    smooth[:, 2] = np.exp(smooth[:, 2])
    return SquarePath(grid, smooth)


def _plausible(squares: Values) -> NDArray[np.bool_]:
    """(N,) bool: squares (N, 3), the side as its logarithm, near the median of themselves and their neighbours.

    The first and the last always are.
    """
    reach = min(_NEIGHBOURS, len(squares) - 1)
    windows = np.lib.stride_tricks.sliding_window_view(
        _continued(squares, reach, squares[0], squares[-1]), 2 * reach + 1, axis=0
    )
    expected = np.median(windows, axis=2)  # (N, 3)
    away = np.linalg.norm(squares[:, :2] - expected[:, :2], axis=1) / np.exp(expected[:, 2])
    return (away < _FARTHEST) & (np.abs(squares[:, 2] - expected[:, 2]) < _MOST_GROWN)


def _smoothed(values: Values, deviation: float, ends: int) -> Values:
    """Values (N,), evenly spaced, under a Gaussian of a standard deviation in samples.

    Beyond the ends they go on by point reflection, about what a straight line through the first and the last `ends` has
    there: a single value is as noisy as any.
    """
    reach = min(len(values) - 1, int(np.ceil(3 * deviation)))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(deviation, 1e-9)) ** 2)
    first, last = _line_at_0(values[:ends]), _line_at_0(values[::-1][:ends])
    return np.convolve(_continued(values, reach, first, last), kernel / kernel.sum(), mode="valid")


def _line_at_0(values: Values) -> float:
    """The value of a straight line through three values or more in place of the first; the first of fewer."""
    return float(values[0] if len(values) < 3 else polyfit(np.arange(len(values)), values, 1)[0])


def _continued(values: Values, reach: int, first: Values | float, last: Values | float) -> Values:
    """Values (N, ...) and `reach` < N more at each end: those beside it, reflected at the point `first` or `last`."""
    before = 2 * first - values[reach:0:-1]
    after = 2 * last - values[-2 : -2 - reach : -1]
    return np.concatenate((before, values, after))
