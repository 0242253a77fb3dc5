"""Features of many channels as images of three."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SPREAD = 2.5  # standard deviations of each component from black to white, both ways


def principal_colours(features: list[Array]) -> list[Array]:
    """Features (C, s, s) as RGB (s, s, 3) in [0, 1]: their three principal components, the same for all of them."""
    rows = np.concatenate([feature.reshape(len(feature), -1).T for feature in features])
    mean = rows.mean(axis=0)
    variances, vectors = np.linalg.eigh(np.cov(rows - mean, rowvar=False))
    components = vectors.T[::-1][:3]
    components = components * np.where(components.sum(axis=1, keepdims=True) < 0, -1, 1)
    spread = SPREAD * np.sqrt(np.maximum(variances[::-1][:3], 0)) + 1e-12
    images = []
    for feature in features:
        projected = (feature.reshape(len(feature), -1).T - mean) @ components.T / spread
        rgb = np.full((len(projected), 3), 0.5)
        rgb[:, : projected.shape[1]] += projected / 2
        images.append(np.clip(rgb, 0, 1).reshape(*feature.shape[1:], 3))
    return images
