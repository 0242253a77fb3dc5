"""Images side by side."""

import numpy as np
from numpy.typing import NDArray


def side_by_side(source: NDArray[np.uint8], driving: NDArray[np.uint8], result: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """source (S, S, 3) or (B, S, S, 3), driving (B, S, S, 3), result (B, S, S, 3) -> (B, S, 3 S, 3), all uint8 RGB."""
    return np.concatenate([np.broadcast_to(source, result.shape), driving, result], axis=2)
