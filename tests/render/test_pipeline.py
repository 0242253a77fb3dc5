import threading
import time
from collections.abc import Generator

import pytest

from cbtalk.render.pipeline import run_pipeline


def numbers(count: int, closed: list[str] | None = None) -> Generator[int, None, None]:
    try:
        yield from range(count)
    finally:
        if closed is not None:
            closed.append(threading.current_thread().name)


def stage_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("cbtalk-")]


def test_items_arrive_once_and_in_order() -> None:
    seen: list[int] = []
    run_pipeline(numbers(100), lambda n: n * n, seen.append)
    assert seen == [n * n for n in range(100)]
    assert stage_threads() == []


def test_stages_overlap() -> None:
    """The producer must be able to make the next item while the consumer still holds this one."""
    produced_third = threading.Event()

    def produce() -> Generator[int, None, None]:
        yield from (0, 1)
        produced_third.set()
        yield 2

    met: list[bool] = []
    run_pipeline(produce(), lambda n: n, lambda n: met.append(produced_third.wait(10)))
    assert met == [True, True, True]


def test_no_more_than_the_queues_hold_is_produced_ahead() -> None:
    produced: list[int] = []
    release = threading.Event()

    def produce() -> Generator[int, None, None]:
        for n in range(50):
            produced.append(n)
            yield n

    def consume(_: int) -> None:
        release.wait(10)

    def let_go() -> None:
        time.sleep(0.3)
        ahead.append(len(produced))
        release.set()

    ahead: list[int] = []
    watcher = threading.Thread(target=let_go)
    watcher.start()
    run_pipeline(produce(), lambda n: n, consume, depth=2)
    watcher.join()
    # one in each stage and two in each queue, and one more that the producer holds while it waits
    assert ahead[0] <= 8
    assert len(produced) == 50


@pytest.mark.parametrize("stage", ["produce", "work", "consume"])
@pytest.mark.parametrize("at", [0, 1, 7, 99])
def test_an_error_in_any_stage_ends_all_and_is_raised(stage: str, at: int) -> None:
    closed: list[str] = []

    def fail(name: str, n: int) -> None:
        if name == stage and n == at:
            raise ValueError(f"{name} {n}")

    def produce() -> Generator[int, None, None]:
        for n in numbers(100, closed):
            fail("produce", n)
            yield n

    def work(n: int) -> int:
        fail("work", n)
        return n

    with pytest.raises(ValueError, match=f"{stage} {at}"):
        run_pipeline(produce(), work, lambda n: fail("consume", n))
    assert stage_threads() == []


def test_the_source_is_closed_in_its_own_thread_when_work_fails() -> None:
    closed: list[str] = []

    def work(n: int) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_pipeline(numbers(100, closed), work, lambda n: None)
    assert closed == ["cbtalk-produce_all"]


def test_an_error_while_the_others_wait_is_not_a_hang() -> None:
    """The consumer dies while the producer and the work wait for room in full queues."""

    def consume(n: int) -> None:
        time.sleep(0.2)
        raise OSError("disk")

    started = time.monotonic()
    with pytest.raises(OSError, match="disk"):
        run_pipeline(numbers(1000), lambda n: n, consume, depth=1)
    assert time.monotonic() - started < 10
