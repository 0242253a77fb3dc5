"""Angles of rotations."""

import numpy as np
from numpy.typing import NDArray


def euler(rotation: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rotation (3, 3) -> its angles about x, y and z in degrees (3,): Rz Ry Rx, as scipy's "xyz".

    With x to the right, y down and z away from the camera these are pitch, yaw and roll.
    """
    matrix = rotation.astype(np.float64)
    sideways = np.hypot(matrix[2, 1], matrix[2, 2])
    angles = (
        np.arctan2(matrix[2, 1], matrix[2, 2]),
        np.arctan2(-matrix[2, 0], sideways),
        np.arctan2(matrix[1, 0], matrix[0, 0]),
    )
    return np.degrees(angles)


def angle_distance(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Mean difference of angles in degrees, the short way round."""
    return float(np.abs((one - other + 180) % 360 - 180).mean())
