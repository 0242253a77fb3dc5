"""The points of a face that the first keypoints are guided to, and what they tell of its expression."""

import numpy as np
import torch
from torch import Tensor

from cbtalk.pretrained.face_mesh import LIPS, LOWER_LIDS, PUPILS, UPPER_LIDS, openings

# Points of `FaceMesh`, and beside each the one that a mirrored image has in its place.
MOUTH_CORNERS = (468, 478)  # left and right in the image
NOSE, CHIN, BROWS, CHEEKS = 1, 152, (105, 334), (234, 454)
PAIRS = (MOUTH_CORNERS, UPPER_LIDS, LOWER_LIDS, PUPILS, BROWS, CHEEKS)
PAIRED = 2 * len(PAIRS)
POINTS = (*(point for pair in PAIRS for point in pair), *LIPS, NOSE, CHIN)
EXPRESSIVE = (slice(0, 6), slice(12, 14))  # of POINTS: mouth and lids
MIRRORED = (*(index ^ 1 for index in range(PAIRED)), *range(PAIRED, len(POINTS)))


def openings_of(points: np.ndarray) -> np.ndarray:
    """Openings of mouth and eyes (T, 2), in distances of the pupils, by points (T, P, 2); NaN as these are."""
    return openings(lambda number: points[:, POINTS.index(number)])


def expressive_places(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The middle (B, 2) of the mouth, of the left and of the right eye, by points (B, P, 2); NaN as these are."""
    lids, lips = points[:, 2:6], torch.cat([points[:, 0:2], points[:, 12:14]], dim=1)
    return lips.mean(1), lids[:, 0::2].mean(1), lids[:, 1::2].mean(1)
