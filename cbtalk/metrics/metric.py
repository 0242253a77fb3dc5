"""One kind of metric of images: a number for each image of a batch, against its target."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor


class Metric(Protocol):
    """Compares images by their features, so that an image that is compared more than once is looked at once."""

    def features(self, image: Tensor) -> list[Tensor]:
        """Of images (B, 3, H, W) in [-1, 1], clamped."""

    def compare(self, prediction: list[Tensor], target: list[Tensor]) -> Tensor:
        """(B,): by the features of 1 or B images, and of B targets."""


class PairMetric:
    """A function of predictions and targets (B, 3, H, W) as a `Metric`: the features are the images."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._function = function

    def features(self, image: Tensor) -> list[Tensor]:
        """See `Metric`."""
        return [image]

    def compare(self, prediction: list[Tensor], target: list[Tensor]) -> Tensor:
        """See `Metric`."""
        (one,), (other,) = prediction, target
        return self._function(one.expand_as(other), other)
