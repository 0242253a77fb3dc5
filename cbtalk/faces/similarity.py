"""Points laid over others: shifted, turned and scaled."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.floating]  # (P, 2)


class Similarity(NamedTuple):
    """Turned and scaled by a complex number around a point, which goes to another."""

    turn: complex
    middle: Points  # (2,)
    target: Points  # (2,)

    def __call__(self, points: Points) -> Points:
        """The points (P, 2), moved."""
        moved = (points - self.middle) @ (1, 1j) * self.turn
        return np.column_stack([moved.real, moved.imag]) + self.target


def similarity(points: Points, target: Points) -> Similarity:
    """The one that lays points as near to `target` as it can, by least squares."""
    middle, wanted_middle = points.mean(0), target.mean(0)
    plane = (points - middle) @ (1, 1j)  # as complex numbers, which turn and scale by multiplication
    wanted = (target - wanted_middle) @ (1, 1j)
    return Similarity(np.vdot(plane, wanted) / np.vdot(plane, plane), middle, wanted_middle)


def laid_over(points: Points, target: Points) -> Points:
    """Points, laid over `target` by `similarity`."""
    return similarity(points, target)(points)
