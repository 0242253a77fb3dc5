"""The pairs of frames that make up a batch; the n-th batch follows from the seed and n alone."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cbtalk.train.sections import DataConfig
from cbtalk.train.share import WHOLE, Share

NEAR_FRAMES = 25  # about a second: the pose is much the same, mouth and eyes are not
EXTREME_SHARE = 8  # expressive pairs come from the most closed and the most open eighth of a clip,
LEAST_OPENED = (0.2, 0.06)  # where mouth, or eyes, open by this much between them, in distances of the pupils


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

    Expressive pairs are drawn among the clips in which a mouth or eyes open enough.

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
        self.all = _by_person(clips, range(len(clips)))
        self.extremes = [_extremes(opening) for opening in openings or []]
        expressive = [clip for clip, found in enumerate(self.extremes) if found]
        self.expressive = _by_person(clips, expressive) if expressive else None
        self.lengths = np.array([length for _, length in clips], dtype=np.int32)
        self.config = config
        self.seed = seed
        self.share = share

    def batch(self, number: int, size: int) -> list[Pair]:
        """The share of batch `number` = 0, 1, ..., which has `size` pairs in all."""
        rng = np.random.default_rng((self.seed, number))
        return [self._draw(rng) for _ in range(size)][self.share.rows(size)]

    def _draw(self, rng: np.random.Generator) -> Pair:
        kind = rng.random()
        if self.expressive is not None and kind >= 1 - self.config.expressive_pairs:
            clip = self.expressive.draw(rng)
            closed, opened = self.extremes[clip][rng.integers(len(self.extremes[clip]))]
            source, driving = int(rng.choice(closed)), int(rng.choice(opened))
        else:
            clip = self.all.draw(rng)
            source, driving = self._in_time_order(rng, kind, int(self.lengths[clip]) - 1)
        if rng.random() < self.config.time_flip:
            source, driving = driving, source
        return Pair(clip, source, driving, bool(rng.random() < self.config.horizontal_flip))

    def _in_time_order(self, rng: np.random.Generator, kind: float, last: int) -> tuple[int, int]:
        """Two frames of 0 to `last`: half a clip apart, within NEAR_FRAMES, or any (one twice, too)."""
        config = self.config
        if kind >= config.far_pairs + config.near_pairs:
            first, second = sorted(int(frame) for frame in rng.integers(last + 1, size=2))
            return first, second
        far = kind < config.far_pairs
        between = ((last + 1) // 2, last) if far else (1, min(NEAR_FRAMES, last))
        distance = int(rng.integers(*between, endpoint=True))
        first = int(rng.integers(last + 1 - distance))
        return first, first + distance


class _People(NamedTuple):
    """Clips by whose they are."""

    clips: np.ndarray  # numbers of clips
    first: np.ndarray  # where those of each person start, and their end

    def draw(self, rng: np.random.Generator) -> int:
        person = int(rng.integers(len(self.first) - 1))
        first, end = self.first[person : person + 2].tolist()
        return int(self.clips[first + rng.integers(end - first)])


def _by_person(clips: Sequence[tuple[Hashable, int]], chosen: Sequence[int]) -> _People:
    people: dict[Hashable, int] = {}
    person = np.array([people.setdefault(clips[clip][0], len(people)) for clip in chosen])
    order = np.argsort(person, kind="stable")
    return _People(np.array(chosen, dtype=np.int32)[order], np.cumsum([0, *np.bincount(person)]))


def _extremes(openings: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The frames with the mouth (the eyes) most closed, and those with it most open, where these differ enough."""
    found = []
    for opening, least in zip(openings.T, LEAST_OPENED, strict=True):
        order = np.argsort(opening)[: int(np.isfinite(opening).sum())]  # NaN comes last
        if len(order) < 2:
            continue
        count = max(1, len(order) // EXTREME_SHARE)
        closed, opened = order[:count], order[-count:]
        if np.median(opening[opened]) - np.median(opening[closed]) >= least:
            found.append((closed, opened))
    return found
