"""Worker processes of a command: they end with their parent, which alone is interrupted."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection, get_context, parent_process
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

_SECONDS_TO_END = 5.0  # for a worker to wind up its job


def start_worker(serve: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A new process that calls `serve`, which does its work within `as_worker`.

    It is spawned: a forked copy of a process with threads or a GPU is unusable.
    """
    process = get_context("spawn").Process(target=serve, args=arguments, daemon=True, name="cbtalk-worker")
    with _sigint_blocked():
        process.start()
    return process


class WorkerDied(Exception):
    """A worker process is gone; the message says what it died of."""


class Worker:
    """A new process that calls `serve(pipe, *arguments)`, and the pipe to it."""

    def __init__(self, serve: Callable[..., None], *arguments: Any) -> None:
        self.pipe, other = connection.Pipe()
        self._process = start_worker(serve, other, *arguments)
        other.close()

    def send(self, message: Any) -> None:
        """Give it something; that it is dead is told by `receive`."""
        with contextlib.suppress(OSError):
            self.pipe.send(message)

    def receive(self) -> Any:
        """Its next message. Raises WorkerDied where there will be none."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            raise WorkerDied(death_in_words(self._process.exitcode)) from None

    def is_alive(self) -> bool:
        """Whether it can take another job."""
        return self._process.is_alive()

    def end(self) -> None:
        """End it; a job that it is at is wound up."""
        self.pipe.close()
        end_workers([self._process])


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
