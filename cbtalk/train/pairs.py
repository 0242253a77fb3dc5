"""The pairs of frames that make up a batch; the n-th batch follows from the seed and n alone."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cbtalk.train.sections import DataConfig
from cbtalk.train.share import WHOLE, Share

NEAR_FRAMES = 25  # about a second: the pose is much the same, mouth and eyes are not
EXTREME_SHARE = 8  # expressive pairs come from the most closed and the most open eighth of a clip


class Pair(NamedTuple):
    """Two frames of a clip, by their numbers, and whether both are mirrored."""

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
        clips: for each clip, whose it is and its number of frames, 2 or more.
        config: the shares of expressive, far and near pairs, and how often pairs are flipped.
        openings: for each clip, how far mouth and eyes are open (T, 2), NaN: unknown; without it, no expressive pairs.
        share: of every batch, this process's.
    """

    def __init__(
        self,
        clips: Sequence[tuple[Hashable, int]],
        config: DataConfig,
        *,
        seed: int,
        openings: Sequence[np.ndarray] | None = None,
        share: Share = WHOLE,
    ) -> None:
        people: dict[Hashable, int] = {}
        person = np.array([people.setdefault(identity, len(people)) for identity, _ in clips])
        self.by_person = np.argsort(person, kind="stable").astype(np.int32)  # clips; those of a person start at
        self.first = np.cumsum([0, *np.bincount(person)])
        self.lengths = np.array([length for _, length in clips], dtype=np.int32)
        self.extremes = None if openings is None else [_extremes(opening) for opening in openings]
        self.config = config
        self.seed = seed
        self.share = share

    def batch(self, number: int, size: int) -> list[Pair]:
        """The share of batch `number` = 0, 1, ..., which has `size` pairs in all."""
        rng = np.random.default_rng((self.seed, number))
        return [self._draw(rng) for _ in range(size)][self.share.rows(size)]

    def _draw(self, rng: np.random.Generator) -> Pair:
        person = int(rng.integers(len(self.first) - 1))
        first, end = self.first[person : person + 2].tolist()
        clip = int(self.by_person[first + rng.integers(end - first)])
        source, driving = self._frames(rng, clip)
        if rng.random() < self.config.time_flip:
            source, driving = driving, source
        return Pair(clip, source, driving, bool(rng.random() < self.config.horizontal_flip))

    def _frames(self, rng: np.random.Generator, clip: int) -> tuple[int, int]:
        """Two frames, expressive, or in time order: half a clip apart, within NEAR_FRAMES, or any (one twice, too)."""
        kind, config = rng.random(), self.config
        if self.extremes is not None and self.extremes[clip] and kind >= 1 - config.expressive_pairs:
            closed, opened = self.extremes[clip][rng.integers(len(self.extremes[clip]))]
            return int(rng.choice(closed)), int(rng.choice(opened))
        longest = int(self.lengths[clip]) - 1
        if kind >= config.far_pairs + config.near_pairs:
            first, last = sorted(int(frame) for frame in rng.integers(longest + 1, size=2))
            return first, last
        far = kind < config.far_pairs
        between = ((longest + 1) // 2, longest) if far else (1, min(NEAR_FRAMES, longest))
        distance = int(rng.integers(*between, endpoint=True))
        first = int(rng.integers(longest + 1 - distance))
        return first, first + distance


def _extremes(openings: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The frames with the mouth (the eyes) most closed, and those with it most open; nothing where all are unknown."""
    found = []
    for opening in openings.T:
        order = np.argsort(opening)[: int(np.isfinite(opening).sum())]  # NaN comes last
        if len(order) > 1:
            count = max(1, len(order) // EXTREME_SHARE)
            found.append((order[:count], order[-count:]))
    return found
