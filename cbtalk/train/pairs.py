"""Which frames of which clips make up a batch; the n-th batch follows from the seed and n alone."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cbtalk.train.config import DataConfig

NEAR_FRAMES = 25  # about a second: the pose is much the same, mouth and eyes are not


class Pair(NamedTuple):
    """Which two frames of which clip, and whether both are mirrored."""

    clip: int
    source: int
    driving: int
    mirrored: bool


def frame_numbers(first: np.ndarray, pairs: Sequence[Pair]) -> Tensor:
    """The numbers (2, B) of the source and driving frames among all frames, each clip's starting at `first`."""
    sources = [first[pair.clip] + pair.source for pair in pairs]
    return torch.tensor(np.array([sources, [first[pair.clip] + pair.driving for pair in pairs]]))


class PairSampler:
    """Draws an identity, then one of its clips, then two of its frames; identities and clips evenly.

    Args:
        clips: for each clip, its identity and its number of frames, 2 or more.
        config: the shares of far and near pairs, and how often pairs are flipped.
    """

    def __init__(self, clips: Sequence[tuple[str, int]], config: DataConfig, *, seed: int) -> None:
        by_identity: dict[str, list[int]] = {}
        for index, (identity, _) in enumerate(clips):
            by_identity.setdefault(identity, []).append(index)
        self.identities = list(by_identity.values())
        self.lengths = [length for _, length in clips]
        self.config = config
        self.seed = seed

    def batch(self, number: int, size: int) -> list[Pair]:
        """The pairs of batch `number` = 0, 1, ..."""
        rng = np.random.default_rng((self.seed, number))
        return [self._draw(rng) for _ in range(size)]

    def _draw(self, rng: np.random.Generator) -> Pair:
        clips = self.identities[rng.integers(len(self.identities))]
        clip = clips[rng.integers(len(clips))]
        source, driving = self._frames(rng, self.lengths[clip])
        if rng.random() < self.config.time_flip:
            source, driving = driving, source
        return Pair(clip, source, driving, bool(rng.random() < self.config.horizontal_flip))

    def _frames(self, rng: np.random.Generator, length: int) -> tuple[int, int]:
        """Two frames in time order: at least half the clip apart, within NEAR_FRAMES, or any (one frame twice, too)."""
        kind, longest = rng.random(), length - 1
        if kind >= self.config.far_pairs + self.config.near_pairs:
            first, last = sorted(int(frame) for frame in rng.integers(length, size=2))
            return first, last
        far = kind < self.config.far_pairs
        between = ((longest + 1) // 2, longest) if far else (1, min(NEAR_FRAMES, longest))
        distance = int(rng.integers(*between, endpoint=True))
        first = int(rng.integers(length - distance))
        return first, first + distance
