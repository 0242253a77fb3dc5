"""A place for one item: the newest wins."""

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Newest(Generic[T]):
    """Holds the last item that was put and not yet taken; those that it replaces are counted, not kept.

    Whoever puts never waits, and whoever takes never gets an item older than one that was there: however slow the
    taker is, nothing queues up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._item: T | None = None
        self.dropped = 0

    def put(self, item: T) -> None:
        """Replace what is there."""
        with self._lock:
            self.dropped += self._item is not None
            self._item = item

    def take(self) -> T | None:
        """The item, which is then gone; None where there is none."""
        with self._lock:
            item, self._item = self._item, None
            return item
