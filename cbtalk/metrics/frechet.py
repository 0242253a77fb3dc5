"""Frechet distance of two sets of feature vectors (Heusel et al. 2017): FID, where an Inception network gave them."""

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


class Gaussian:
    """Mean and covariance of vectors that are added part after part, in float64; their number may be any."""

    def __init__(self) -> None:
        self.count = 0
        self._sum: Matrix = np.zeros(0)
        self._products: Matrix = np.zeros((0, 0))

    def add(self, vectors: NDArray[np.floating], times: int = 1) -> None:
        """More vectors (N, D), each counted `times` times."""
        values = vectors.astype(np.float64)
        if not self.count:
            self._sum = np.zeros(values.shape[1])
            self._products = np.zeros((values.shape[1], values.shape[1]))
        self.count += times * len(values)
        self._sum += times * values.sum(0)
        self._products += times * (values.T @ values)

    def mean(self) -> Matrix:
        """(D,)."""
        return self._sum / self.count

    def covariance(self) -> Matrix:
        """(D, D), of the sample: divided by one less than their number."""
        mean = self.mean()
        return (self._products - self.count * np.outer(mean, mean)) / (self.count - 1)


def frechet_distance(one: Gaussian, other: Gaussian) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)); each needs two vectors.

    The trace of the root is that of (C1^(1/2) C2 C1^(1/2))^(1/2), whose matrices are symmetric: no complex numbers.
    """
    first, second = one.covariance(), other.covariance()
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    product = root @ second @ root
    shared = np.sqrt(np.linalg.eigvalsh((product + product.T) / 2).clip(0)).sum()
    difference = one.mean() - other.mean()
    return float(difference @ difference + np.trace(first) + np.trace(second) - 2 * shared)
