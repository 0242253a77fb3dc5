"""Worker processes, each with one job at a time, that end with their parent and whose crash costs one job only."""

import contextlib
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from multiprocessing import connection, get_context, parent_process
from types import FrameType

import torch

from cbtalk.prepare.messages import Aborted, Done, Failed, Message, Progress
from cbtalk.prepare.work import Job, work

_SECONDS_TO_END = 5.0
_SECONDS_OF_PROGRESS = 0.5  # between two messages of progress


def run_jobs(jobs: Iterable[Job], workers: int) -> Generator[tuple[Job, Message], None, None]:
    """Do the jobs in at most so many processes, among which torch's threads are divided; yields what they tell.

    When the iteration is given up, the processes are ended before it returns, and leave nothing half written.
    """
    waiting = deque(jobs)
    threads = max(1, torch.get_num_threads() // workers)
    active: dict[connection.Connection, _Worker] = {}
    try:
        while waiting or active:
            while waiting and len(active) < workers:
                worker = _Worker(threads)
                active[worker.pipe] = worker
                worker.give(waiting.popleft())
            for pipe in connection.wait(list(active)):
                worker = active[pipe]  # type: ignore[index]
                message = worker.receive()
                yield worker.job, message
                if isinstance(message, Done | Failed | Aborted):
                    if waiting and worker.is_alive():
                        worker.give(waiting.popleft())
                    else:
                        del active[worker.pipe]
                        worker.end()
    finally:
        for worker in active.values():
            worker.end()


class _Worker:
    """A process and the pipe to it."""

    job: Job

    def __init__(self, threads: int) -> None:
        self.pipe, other = connection.Pipe()
        self._process = get_context("spawn").Process(target=_serve, args=(other, threads), daemon=True)
        with _sigint_blocked():
            self._process.start()
        other.close()

    def give(self, job: Job) -> None:
        """Let it do a job."""
        self.job = job
        with contextlib.suppress(OSError):  # it is dead, which `receive` will tell
            self.pipe.send(job)

    def receive(self) -> Message:
        """What it tells next, or that it is dead."""
        try:
            message: Message = self.pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode
            return Failed(f"{self.job.source.path}: its worker process died ({_words(code)}); try it again alone")
        return message

    def is_alive(self) -> bool:
        """Whether it can take another job."""
        return self._process.is_alive()

    def end(self) -> None:
        """End it; a job that it is at is wound up."""
        self.pipe.close()
        if self._process.is_alive():
            self._process.terminate()
        self._process.join(_SECONDS_TO_END)
        self._process.kill()
        self._process.join()


def _words(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"exit code {exit_code}"
    return f"{signal.Signals(-exit_code).name}{', perhaps out of memory' if exit_code == -9 else ''}"


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


def _serve(pipe: connection.Connection, threads: int) -> None:
    """Do jobs until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for systems without masks
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        while True:
            job: Job = pipe.recv()
            told = 0.0
            with contextlib.closing(work(job)) as messages:
                for message in messages:
                    if isinstance(message, Progress):
                        if time.monotonic() < told + _SECONDS_OF_PROGRESS:
                            continue
                        told = time.monotonic()
                    pipe.send(message)


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
