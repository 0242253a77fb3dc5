from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cbtalk.train.pairs import NEAR_FRAMES, Pair, PairSampler
from cbtalk.train.sections import DataConfig

CLIPS = [("ann", 10), ("ann", 20), ("bob", 30)]


def draw(
    count: int,
    *,
    seed: int = 0,
    clips: list[tuple[str, int]] = CLIPS,
    openings: list[np.ndarray] | None = None,
    **options: Any,
) -> list[Pair]:
    return PairSampler(clips, DataConfig(**options), seed=seed, openings=openings).batch(0, count)


def test_a_batch_follows_from_the_seed_and_its_number() -> None:
    one, other = (PairSampler(CLIPS, DataConfig(), seed=3) for _ in range(2))
    batches = [one.batch(number, 8) for number in range(5)]
    assert [other.batch(number, 8) for number in (4, 2, 0)] == [batches[4], batches[2], batches[0]]
    assert all(a != b for a, b in pairwise(batches))
    assert PairSampler(CLIPS, DataConfig(), seed=4).batch(0, 8) != batches[0]


def test_identities_then_clips_are_drawn_evenly() -> None:
    counts = Counter(pair.clip for pair in draw(4000))
    assert abs(counts[2] - 2000) < 150 and abs(counts[0] - 1000) < 120 and abs(counts[1] - 1000) < 120


def test_frames_lie_in_their_clip_and_cover_it() -> None:
    pairs = draw(4000)
    assert {pair.source for pair in pairs if pair.clip == 0} == set(range(10))
    assert any(pair.source == pair.driving for pair in pairs)


def test_time_order_without_time_flip_and_half_of_it_with() -> None:
    assert all(pair.source <= pair.driving for pair in draw(500, time_flip=0.0))
    flipped = [pair.source > pair.driving for pair in draw(2000)]
    assert 0.42 < np.mean(flipped) < 0.5  # half of those whose frames differ


@settings(deadline=None)
@given(length=st.integers(2, 200), seed=st.integers(0, 99))
def test_far_pairs_are_half_a_clip_apart_and_near_ones_a_second(length: int, seed: int) -> None:
    clips = [("ann", length)]
    for pair in draw(20, seed=seed, clips=clips, far_pairs=1.0):
        assert 2 * abs(pair.source - pair.driving) >= length - 1
        assert min(pair.source, pair.driving) >= 0 and max(pair.source, pair.driving) < length
    for pair in draw(20, seed=seed, clips=clips, near_pairs=1.0):
        assert 1 <= abs(pair.source - pair.driving) <= NEAR_FRAMES


def test_the_shares_of_far_and_near_pairs() -> None:
    distances = np.array(
        [abs(p.source - p.driving) for p in draw(4000, clips=[("ann", 1001)], far_pairs=0.5, near_pairs=0.3)]
    )
    assert abs(np.mean(distances >= 500) - (0.5 + 0.2 / 4)) < 0.03  # a quarter of the uniform ones is far, too
    assert abs(np.mean(distances <= NEAR_FRAMES) - (0.3 + 0.2 * 0.05)) < 0.03


def test_expressive_pairs_are_of_a_closed_and_an_opened_mouth_or_eyes() -> None:
    mouth, eyes = np.arange(80.0), np.roll(np.arange(80.0), 40)
    openings = np.stack([mouth, eyes], axis=1)
    openings[::5] = np.nan  # no face found
    pairs = draw(4000, clips=[("ann", 80)], openings=[openings], expressive_pairs=1.0)
    low, high = np.array([sorted((pair.source, pair.driving)) for pair in pairs]).T
    of_mouth = high - low > 60
    assert 0.45 < of_mouth.mean() < 0.55 and (of_mouth | (high - low < 20)).all()
    assert 0.45 < np.mean([pair.source > pair.driving for pair in pairs]) < 0.55
    assert not {frame for pair in pairs for frame in (pair.source, pair.driving)} & set(range(0, 80, 5))


def test_the_share_of_expressive_pairs_and_clips_in_which_nothing_opens() -> None:
    wide, still, unknown = np.arange(80.0), np.linspace(0, 0.05, 80), np.full(80, np.nan)
    clips: list[tuple[str, int]] = [("ann", 80), ("bob", 80), ("cid", 80)]
    openings = [np.stack([wide, still], axis=1), np.stack([still, unknown], axis=1), np.stack([unknown] * 2, axis=1)]
    pairs = draw(4000, clips=clips, openings=openings, expressive_pairs=0.5, near_pairs=0.5)
    distances = [np.array([abs(p.source - p.driving) for p in pairs if p.clip == clip]) for clip in range(3)]
    assert abs(len(distances[0]) / 4000 - (0.5 + 0.5 / 3)) < 0.03 and len(distances[1]) > 500 < len(distances[2])
    assert abs(np.mean(distances[0] > 60) - 0.75) < 0.04
    assert all((distances[clip] <= NEAR_FRAMES).all() for clip in (1, 2))
