"""Points laid over others: shifted, turned and scaled."""

import numpy as np
from numpy.typing import NDArray


def similarity(points: NDArray[np.floating], target: NDArray[np.floating]) -> tuple[complex, complex]:
    """(turn, shift): turn * (x + iy) + shift lays points (P, 2) as near to `target` (P, 2) as it can, least squares."""
    plane, wanted = points @ (1, 1j), target @ (1, 1j)  # complex numbers turn and scale by multiplication
    centred = plane - plane.mean()
    turn = np.vdot(centred, wanted - wanted.mean()) / np.vdot(centred, centred)
    return complex(turn), complex(wanted.mean() - turn * plane.mean())


def laid_over(points: NDArray[np.floating], target: NDArray[np.floating]) -> NDArray[np.floating]:
    """Points (P, 2), laid over `target` (P, 2) by `similarity`."""
    turn, shift = similarity(points, target)
    moved = turn * (points @ (1, 1j)) + shift
    return np.column_stack([moved.real, moved.imag])
