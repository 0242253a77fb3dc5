from collections import Counter

import numpy as np
import torch

from cbtalk.train.data import Pair, PairLoader, PairSampler

CLIPS = [("ann", 10), ("ann", 20), ("bob", 30)]


def draw(sampler: PairSampler, count: int) -> list[Pair]:
    return [sampler.draw() for _ in range(count)]


def test_sampler_goes_on_from_its_two_integers() -> None:
    whole = draw(PairSampler(CLIPS, seed=3), 40)
    first = PairSampler(CLIPS, seed=3)
    begun = draw(first, 17)
    second = PairSampler(CLIPS, seed=0)
    second.seed, second.drawn = first.seed, first.drawn
    assert begun + draw(second, 23) == whole
    assert draw(PairSampler(CLIPS, seed=4), 40) != whole


def test_identities_then_clips_are_drawn_evenly() -> None:
    counts = Counter(pair.clip for pair in draw(PairSampler(CLIPS, seed=0), 4000))
    assert abs(counts[2] - 2000) < 150 and abs(counts[0] - 1000) < 120 and abs(counts[1] - 1000) < 120


def test_frames_lie_in_their_clip_and_cover_it() -> None:
    pairs = draw(PairSampler(CLIPS, seed=0), 4000)
    assert {pair.source for pair in pairs if pair.clip == 0} == set(range(10))
    assert any(pair.source == pair.driving for pair in pairs)


def test_time_order_without_time_flip_and_half_of_it_with() -> None:
    ordered = draw(PairSampler(CLIPS, seed=0, time_flip=0.0), 500)
    assert all(pair.source <= pair.driving for pair in ordered)
    flipped = [pair.source > pair.driving for pair in draw(PairSampler(CLIPS, seed=0), 2000)]
    assert 0.42 < np.mean(flipped) < 0.5  # half of those whose frames differ


def test_both_frames_of_a_pair_are_mirrored_together() -> None:
    frames = [np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)]
    batches = {}
    for probability in (0.0, 1.0):
        sampler = PairSampler([("ann", 5)], seed=0, horizontal_flip=probability)
        batches[probability] = PairLoader(frames, sampler).batch(6, torch.device("cpu"))
    for plain, mirrored in zip(batches[0.0], batches[1.0], strict=True):
        assert torch.equal(plain.flip(-1), mirrored)


def test_pictures_span_minus_one_to_one() -> None:
    frames = [np.stack([np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)])]
    source, driving = PairLoader(frames, PairSampler([("ann", 2)], seed=0)).batch(16, torch.device("cpu"))
    assert source.shape == (16, 3, 4, 4) and source.is_contiguous(memory_format=torch.channels_last)
    assert torch.cat([source, driving]).unique().tolist() == [-1.0, 1.0]
