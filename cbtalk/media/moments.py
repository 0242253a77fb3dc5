"""Some items of a sequence, spread evenly over it."""

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")


class Moments(Generic[T]):
    """Items of a sequence of unknown length, spread evenly over it, in constant memory.

    count: the most that are wanted. kept: called with an item that is to be kept; returns what is kept of it.
    """

    def __init__(self, count: int, kept: Callable[[T], T] = lambda item: item) -> None:
        self.count = count
        self._keep = kept
        self.seen = 0
        self._kept: list[T] = []
        self._step = 1
        self._last: T | None = None  # where it is not among those kept

    def add(self, item: T) -> None:
        """The next item."""
        self._last = item
        if self.seen % self._step == 0:
            self._kept.append(self._keep(item))
            self._last = None
        if len(self._kept) == 4 * self.count:
            self._last, self._kept = self._kept[-1], self._kept[::2]
            self._step *= 2
        self.seen += 1

    def chosen(self) -> list[T]:
        """At most `count` items, in order, the first and the last among them; of one, the first."""
        items = [*self._kept, *([] if self._last is None else [self._last])]
        places = np.linspace(0, len(items) - 1, min(self.count, len(items))).round()
        return [items[int(place)] for place in places]


def evenly(items: Iterable[T], count: int) -> list[T]:
    """At most `count` of the items, as `Moments` chooses them."""
    moments = Moments[T](count)
    for item in items:
        moments.add(item)
    return moments.chosen()
