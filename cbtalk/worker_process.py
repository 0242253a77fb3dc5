"""Worker processes of a command: they end with their parent, which alone is interrupted."""

import contextlib
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from multiprocessing import connection, get_context, parent_process
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, NamedTuple, TypeVar

J = TypeVar("J")

_SECONDS_TO_END = 5.0  # for a worker to wind up its job
_STARTED = object()


def start_worker(serve: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A new process that calls `serve`, which does its work within `as_worker`.

    It is spawned: a forked copy of a process with threads or a GPU is unusable.
    """
    process = get_context("spawn").Process(target=serve, args=arguments, daemon=True, name="cbtalk-worker")
    with _sigint_blocked():
        process.start()
    return process


class Died(NamedTuple):
    """The last message about a job whose worker is gone: what it died of, and whether it had started to serve."""

    reason: str
    started: bool


def served(
    jobs: Iterable[J],
    serve: Callable[..., None],
    workers: Sequence[tuple[Any, ...]],
    *,
    is_last: Callable[[Any], bool] = lambda message: True,
    stop: Callable[[], bool] = lambda: False,
) -> Generator[tuple[J, Any], None, None]:
    """Does jobs in worker processes, each of which has one at a time; yields the jobs with what is told of them.

    A worker calls `serve(pipe, *arguments)`, which receives jobs from the pipe and sends messages about them. One that
    dies costs the job that it was at, and is replaced. When the iteration is given up, the processes are ended before
    it returns; jobs that they are at are wound up.

    Args:
        workers: the arguments of each.
        is_last: whether a message is the last one about its job.
        stop: asked before a job is given away: whether none shall be begun any more.
    """
    waiting = deque(jobs)
    active: dict[connection.Connection, _Worker] = {}
    jobs_of: dict[connection.Connection, J] = {}

    def give(worker: _Worker) -> None:
        jobs_of[worker.pipe] = waiting.popleft()
        active[worker.pipe] = worker
        worker.send(jobs_of[worker.pipe])

    try:
        for arguments in workers[: len(waiting)]:
            give(_Worker(serve, arguments))
        while active:
            for pipe in connection.wait(list(active)):
                worker = active[pipe]  # type: ignore[index]
                message = worker.receive()
                if message is _STARTED:
                    continue
                yield jobs_of[worker.pipe], message
                if not (isinstance(message, Died) or is_last(message)):
                    continue
                del active[worker.pipe]
                if waiting and not stop():
                    give(worker if worker.is_alive() else worker.replaced())
                else:
                    worker.end()
    finally:
        for worker in active.values():
            worker.end()


class _Worker:
    """A new process that serves, and the pipe to it."""

    def __init__(self, serve: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.pipe, other = connection.Pipe()
        self._serve, self._arguments = serve, arguments
        self._process = start_worker(_begin, serve, other, arguments)
        self._started = False
        other.close()

    def send(self, message: Any) -> None:
        """Give it something; that it is dead is told by `receive`."""
        with contextlib.suppress(OSError):
            self.pipe.send(message)

    def receive(self) -> Any:
        """Its next message: _STARTED is the first, Died one that there is always."""
        try:
            message = self.pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            return Died(death_in_words(self._process.exitcode), self._started)
        if not self._started:
            self._started = True
            return _STARTED
        return message

    def is_alive(self) -> bool:
        """Whether it can take another job."""
        return self._process.is_alive()

    def replaced(self) -> "_Worker":
        """A new one with the same arguments; this one is ended."""
        self.end()
        return _Worker(self._serve, self._arguments)

    def end(self) -> None:
        """End it; a job that it is at is wound up."""
        self.pipe.close()
        end_workers([self._process])


def _begin(serve: Callable[..., None], pipe: connection.Connection, arguments: tuple[Any, ...]) -> None:
    with contextlib.suppress(OSError):  # the parent is gone, which as_worker sees
        pipe.send(None)
    serve(pipe, *arguments)


@contextlib.contextmanager
def as_worker() -> Iterator[None]:
    """In the new process: leave Ctrl-C and hang-ups to the parent, unwind on SIGTERM, end when the parent has died."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for systems without masks
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # nothing is left to unwind


def end_workers(processes: Sequence[BaseProcess]) -> None:
    """End processes; the jobs that they are at are wound up."""
    for process in processes:
        process.terminate()
    until = time.monotonic() + _SECONDS_TO_END
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        process.kill()
        process.join()


def death_in_words(exit_code: int | None) -> str:
    """The reason of a worker's death, for messages."""
    if exit_code is None or exit_code >= 0:
        return f"exit code {exit_code}"
    return f"{signal.Signals(-exit_code).name}{', perhaps out of memory' if exit_code == -signal.SIGKILL else ''}"


@contextlib.contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Processes started meanwhile never see Ctrl-C, which the terminal sends to all: their parent ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(number: int, _frame: FrameType | None) -> None:
    """Unwind, so that what is half written is removed."""
    raise SystemExit(128 + number)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_SECONDS_TO_END)
    os._exit(1)
