"""Three stages that overlap, with bounded queues between them: one produces, one works, one consumes.

The work stays in the calling thread because that is where Python delivers signals: an interruption ends the work at
once, and both threads are wound up before the exception goes on.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Generic, TypeVar

A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")


class Cancelled(Exception):
    """The other side of a channel has gone; there is nobody to work for."""


class Channel(Generic[T]):
    """A queue of at most `depth` items for one producer and one consumer, which either side can cancel.

    `put` waits while the queue is full and iteration waits while it is empty; after `cancel` both raise `Cancelled`
    at once, so that no thread is ever left waiting for another that has died.
    """

    def __init__(self, depth: int) -> None:
        self._items: deque[T] = deque()
        self._depth = depth
        self._changed = threading.Condition()
        self._closed = False
        self._cancelled = False

    def put(self, item: T) -> None:
        """Append an item, waiting while the queue is full."""
        with self._changed:
            self._changed.wait_for(lambda: self._cancelled or len(self._items) < self._depth)
            if self._cancelled:
                raise Cancelled
            self._items.append(item)
            self._changed.notify_all()

    def close(self) -> None:
        """Say that nothing more will be put; what is queued is still delivered."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def cancel(self) -> None:
        """Drop what is queued and wake both sides."""
        with self._changed:
            self._cancelled = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._cancelled or self._closed or bool(self._items))
                if self._cancelled:
                    raise Cancelled
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item


def run_pipeline(
    produce: Generator[A, None, None], work: Callable[[A], B], consume: Callable[[B], None], *, depth: int = 2
) -> None:
    """Pass every item of `produce` through `work` and then `consume`, in order, the three overlapping.

    At most `depth` items wait between two stages, so memory does not grow with the number of items. `produce` runs
    (and is closed) in one thread, `consume` in another, `work` in the calling thread. The first exception of any
    stage stops the others, both threads are joined, and the exception is raised here.
    """
    incoming: Channel[A] = Channel(depth)
    outgoing: Channel[B] = Channel(depth)
    failures: list[BaseException] = []

    def guarded(stage: Callable[[], None]) -> None:
        try:
            stage()
        except Cancelled:
            pass
        except BaseException as failure:  # handed to the calling thread, which raises it
            failures.append(failure)
            incoming.cancel()
            outgoing.cancel()

    def produce_all() -> None:
        with closing(produce):
            for item in produce:
                incoming.put(item)
        incoming.close()

    def consume_all() -> None:
        for result in outgoing:
            consume(result)

    threads = [
        threading.Thread(target=guarded, args=(stage,), name=f"cbtalk-{stage.__name__}", daemon=True)
        for stage in (produce_all, consume_all)
    ]
    try:
        for thread in threads:
            thread.start()
        for item in incoming:
            outgoing.put(work(item))
        outgoing.close()
        _join(threads)
    except Cancelled:
        pass  # a thread failed: its exception is raised below
    finally:
        incoming.cancel()
        outgoing.cancel()
        _join(threads)
    if failures:
        raise failures[0]


def _join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        if thread.ident is not None:
            thread.join()
