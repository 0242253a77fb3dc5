"""Keypoints smoothed over time, without delay."""

import torch
from torch import Tensor

from cbtalk.model.keypoints import Keypoints

SMOOTHEST = 1.0  # seconds: what is smoothed more hardly moves
# Standard deviations: the weight beyond is below 4e-4 of the largest. Not a whole number, lest rounding decide whether
# a neighbour that lies a round time away is in reach on one side and not on the other.
REACH = 4.0001


def smooth(keypoints: Keypoints, times: Tensor, seconds: float) -> Keypoints:
    """Keypoints and jacobians of one run of frames without a cut, smoothed over time.

    Each number becomes the value, at its own time, of the straight line that fits its neighbours best by least squares
    under Gaussian weights. In the middle of a steady run this is the Gaussian mean. It is symmetric in time, so nothing
    is delayed; a straight line stays what it is at the ends, too, and at any frame rate.

    Args:
        keypoints: T frames, value (T, K, 2) and jacobian (T, K, 2, 2), on any device; returned in their dtype.
        times: (T,) seconds, rising.
        seconds: standard deviation of the weights; 0 returns the keypoints as they are.
    """
    if seconds == 0 or len(times) < 2:
        return keypoints
    times = times.double().contiguous()
    weights = _weights(times, seconds).to(keypoints.value.device)  # (2 R + 1, T)
    return Keypoints(*(_apply(weights, part) for part in keypoints))


def _weights(times: Tensor, seconds: float) -> Tensor:
    """(2 R + 1, T): what the frame R - n places before a frame counts for it; the sum over n is 1."""
    last = torch.searchsorted(times, times + REACH * seconds, right=True)  # (T,): one behind the last in reach
    own = torch.arange(len(times), device=times.device)
    reach = int((last - 1 - own).max())
    places = own + torch.arange(-reach, reach + 1, device=times.device)[:, None]  # (2 R + 1, T)
    inside = (places >= 0) & (places < len(times))
    distance = (times[places.clamp(0, len(times) - 1)] - times) / seconds
    kernel = torch.exp(-distance.square() / 2).where(inside, 0) * (distance.abs() <= REACH)
    sums = [(kernel * distance**power).sum(dim=0) for power in range(3)]
    spread = sums[0] * sums[2] - sums[1].square()  # 0 where a frame has no neighbour in reach
    alone = spread <= 1e-12 * sums[0].square()
    line = kernel * (sums[2] - sums[1] * distance) / spread.where(~alone, 1)
    return line.where(~alone, kernel / sums[0])


def _apply(weights: Tensor, part: Tensor) -> Tensor:
    """Weighted sums of neighbouring frames (T, ...), one offset after another, so that memory stays small."""
    frames, reach = len(part), len(weights) // 2
    wide = part.double().flatten(1)  # (T, N)
    result = torch.zeros_like(wide)
    for offset, weight in zip(range(-reach, reach + 1), weights, strict=True):
        first, end = max(0, -offset), frames - max(0, offset)  # rows whose neighbour exists
        if first < end:
            result[first:end] += weight[first:end, None] * wide[first + offset : end + offset]
    return result.view(part.shape).to(part.dtype)
