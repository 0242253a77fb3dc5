import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cbtalk.media.moments import Moments, evenly


@given(st.integers(0, 400), st.integers(1, 6))
def test_moments_are_spread_from_the_first_to_the_last(length: int, count: int) -> None:
    chosen = evenly(iter(range(length)), count)
    assert len(chosen) == min(length, count) and chosen == sorted(set(chosen))
    assert chosen[:1] == [0] * min(length, 1) and (count == 1 or chosen[-1:] == list(range(length))[-1:])
    if count > 1 and length > count:
        assert np.diff(chosen).max() <= 2 * length / (count - 1)


def test_memory_is_constant() -> None:
    kept: list[int] = []

    def keep(item: int) -> int:
        kept.append(item)
        return item

    moments = Moments[int](5, keep)
    for number in range(10_000):
        moments.add(number)
    assert len(kept) < 200 and moments.seen == 10_000
