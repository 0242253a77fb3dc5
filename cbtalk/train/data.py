"""Pairs of frames for training: decoded clips, and a sampler whose state is two integers."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Pair(NamedTuple):
    """Which two frames of which clip, and how they are flipped."""

    clip: int
    source: int
    driving: int
    mirrored: bool


class PairSampler:
    """Draws an identity, then one of its clips, then two frames with replacement in time order; each evenly.

    The n-th pair follows from the seed and n alone, so that (`seed`, `drawn`) resumes the sequence exactly.

    Args:
        clips: for each clip, its identity and its number of frames.
    """

    def __init__(
        self, clips: Sequence[tuple[str, int]], *, seed: int, horizontal_flip: float = 0.5, time_flip: float = 0.5
    ) -> None:
        by_identity: dict[str, list[int]] = {}
        for index, (identity, _) in enumerate(clips):
            by_identity.setdefault(identity, []).append(index)
        self.identities = list(by_identity.values())
        self.lengths = [length for _, length in clips]
        self.horizontal_flip = horizontal_flip
        self.time_flip = time_flip
        self.seed = seed
        self.drawn = 0

    def draw(self) -> Pair:
        """The next pair."""
        rng = np.random.default_rng((self.seed, self.drawn))
        self.drawn += 1
        clips = self.identities[rng.integers(len(self.identities))]
        clip = clips[rng.integers(len(clips))]
        source, driving = sorted(int(frame) for frame in rng.integers(self.lengths[clip], size=2))
        if rng.random() < self.time_flip:
            source, driving = driving, source
        return Pair(clip, source, driving, bool(rng.random() < self.horizontal_flip))


class PairLoader:
    """Batches of pairs from decoded clips.

    Args:
        frames: for each clip, uint8 (T, H, W, 3), in memory or mapped from a file.
    """

    def __init__(self, frames: Sequence[np.ndarray], sampler: PairSampler) -> None:
        self.frames = frames
        self.sampler = sampler

    def batch(self, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Source and driving frames, each (size, 3, H, W) in [-1, 1], channels_last."""
        pairs = [self.sampler.draw() for _ in range(size)]
        source = np.stack([self._frame(pair.clip, pair.source, pair.mirrored) for pair in pairs])
        driving = np.stack([self._frame(pair.clip, pair.driving, pair.mirrored) for pair in pairs])
        return to_picture(source, device), to_picture(driving, device)

    def _frame(self, clip: int, frame: int, mirrored: bool) -> np.ndarray:
        image = self.frames[clip][frame]
        return image[:, ::-1] if mirrored else image


def to_picture(frames: np.ndarray, device: torch.device) -> Tensor:
    """uint8 (B, H, W, 3) -> (B, 3, H, W) in [-1, 1], channels_last, on the device."""
    tensor = torch.from_numpy(frames)
    if device.type == "cuda":
        tensor = tensor.pin_memory().to(device, non_blocking=True)
    return tensor.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
