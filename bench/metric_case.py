"""A metric beside an implementation that is not ours."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DRAWS = 12
FLOAT32, FLOAT64 = 2e-5, 1e-9  # relative differences that are rounding, over sums of many terms

Array = NDArray[np.floating]
Draw = Iterator[tuple[float, float]]  # ours, theirs


class Comparison(NamedTuple):
    """A metric, an implementation that is not ours, drawn cases of both, and how far apart rounding may put them."""

    metric: str
    other: str
    cases: Callable[[], Draw]
    most: float


class Agreement(NamedTuple):
    """Over the cases of a comparison: their number, the size of the figures, and the largest relative difference."""

    cases: int
    size: float
    difference: float


def agreement(comparison: Comparison) -> Agreement:
    """The distance of a metric from the other implementation."""
    ours, theirs = (np.array(values) for values in zip(*comparison.cases(), strict=True))
    scale = np.abs(theirs).mean()
    return Agreement(len(ours), float(scale), float(np.abs(ours - theirs).max() / scale))
