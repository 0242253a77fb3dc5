"""Work on many files in processes, each with one at a time, whose crash costs one file only."""

import contextlib
import logging
import os
from collections.abc import Callable, Generator, Sequence
from multiprocessing import connection
from typing import Any, NamedTuple, TypeVar

import torch

from cbtalk.errors import CbtalkError, InputError, SystemFailure
from cbtalk.worker_process import Worker, WorkerDied, as_worker

logger = logging.getLogger("cbtalk")

J = TypeVar("J")
R = TypeVar("R")

_JOBS_FOR_A_PROCESS = 16  # fewer are done before it has started


class Failed(NamedTuple):
    """A job that came to nothing; `reason` names the file."""

    reason: str


class _Said(NamedTuple):
    """A process's answer to a job: what came of it, or an error that ends all; and what it logged."""

    result: Any
    fatal: Exception | None
    logged: list[str]


def processes_for(jobs: int, most: int | None = None) -> int:
    """The number of processes that so many jobs are worth; by default at most one for each core."""
    return max(1, min(most or len(os.sched_getaffinity(0)), jobs // _JOBS_FOR_A_PROCESS))


def done_by(work: Callable[[J], R], jobs: Sequence[J], processes: int) -> Generator[tuple[J, "R | Failed"], None, None]:
    """Do the jobs, in no certain order; yields what `work`, a function of a module, returns, or Failed where it fails.

    One process is this one. When the iteration is given up, the others are ended before it returns.

    Raises the errors of `work` that are not about its file, such as that of a full disk, and SystemFailure where no
    process can be started.
    """
    if processes == 1:
        for job in jobs:
            yield job, _attempted(work, job)
        return
    waiting = [*jobs][::-1]
    active: dict[connection.Connection, tuple[Worker, J | None]] = {}
    try:
        for _ in range(processes):
            _start(active, work)
        while active:
            for pipe in connection.wait(list(active)):
                worker, job = active.pop(pipe)  # type: ignore[call-overload]
                if (result := _heard(worker, job)) is not None and job is not None:
                    yield job, result
                if waiting and not worker.is_alive():
                    worker.end()
                    _start(active, work)
                elif waiting:
                    worker.send(waiting[-1])
                    active[worker.pipe] = worker, waiting.pop()
                else:
                    worker.end()
    finally:
        for worker, _ in active.values():
            worker.end()


def _start(active: dict[connection.Connection, tuple[Worker, J | None]], work: Callable[[J], R]) -> None:
    worker = Worker(_serve, work)
    active[worker.pipe] = worker, None


def _heard(worker: Worker, job: J | None) -> Any:
    """A worker's answer to its job; None: that it has started."""
    try:
        said: _Said | None = worker.receive()
    except WorkerDied as death:
        if job is None:
            raise SystemFailure(
                f"processes cannot be started ({death}); a script must do its work under if __name__ == '__main__'"
            ) from death
        return Failed(f"{job}: the process that read it died ({death})")
    if said is None:
        return None
    for line in said.logged:
        logger.warning("%s", line)
    if said.fatal is not None:
        raise said.fatal
    return said.result


def _attempted(work: Callable[[J], R], job: J) -> R | Failed:
    try:
        return work(job)
    except InputError as error:
        return Failed(str(error))
    except CbtalkError:
        raise
    except Exception as error:  # one file must not stop the others
        return Failed(f"{job}: internal: {type(error).__name__}: {error}")


def _serve(pipe: connection.Connection, work: Callable[[J], R]) -> None:
    """Do jobs until the pipe is closed."""
    torch.set_num_threads(1)
    lines = _Lines()
    logger.addHandler(lines)
    logger.propagate = False
    with as_worker(), contextlib.suppress(EOFError, OSError):  # the parent has closed the pipe, or is gone
        pipe.send(None)
        while True:
            job = pipe.recv()
            result, fatal = None, None
            try:
                result = _attempted(work, job)
            except Exception as error:
                fatal = error
            pipe.send(_Said(result, fatal, lines.taken()))


class _Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self._lines.append(record.getMessage())

    def taken(self) -> list[str]:
        """The lines since the last call."""
        lines, self._lines = self._lines, []
        return lines
