"""Workers of a batch on one machine: processes that are replaced when they die."""

import multiprocessing
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from cbtalk.batch.job import Job
from cbtalk.batch.worker import Outcome, Setting, serve

_CONTEXT = multiprocessing.get_context("spawn")  # a forked copy of a process with threads or a GPU is unusable
_SOON = 100  # jobs among which a worker may choose
_PATIENCE = 10.0  # seconds for a worker to end by itself


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    setting: Setting
    job: Job | None = None
    source: Path | None = None  # of its last job


class Pool:
    """Processes with one setting each; `give` hands out jobs, `outcomes` says how they ended."""

    def __init__(self, settings: Sequence[Setting]) -> None:
        self._hold, self._alive = _CONTEXT.Pipe()  # closed by the system when this process dies
        self._workers = [self._start(setting) for setting in settings]

    @property
    def idle(self) -> int:
        """Workers without a job."""
        return sum(worker.job is None for worker in self._workers)

    def jobs(self) -> list[Job]:
        """The jobs that workers are at."""
        return [worker.job for worker in self._workers if worker.job is not None]

    def give(self, waiting: list[Job]) -> Job:
        """Takes a job off `waiting` for an idle worker."""
        worker = next(worker for worker in self._workers if worker.job is None)
        job = next_job(waiting, worker.source)
        worker.job, worker.source = job, job.source
        with suppress(OSError):  # it has died, which `outcomes` will say
            worker.connection.send(job)
        return job

    def outcomes(self, seconds: float) -> list[tuple[Job, Outcome]]:
        """The jobs that end within some seconds; a worker that died is replaced, and its job has crashed."""
        waiting = {worker.connection: worker for worker in self._workers if worker.job is not None}
        found = []
        for connection in wait(list(waiting), timeout=seconds):
            worker = waiting[connection]  # type: ignore[index]
            job, worker.job = worker.job, None
            assert job is not None
            try:
                found.append((job, worker.connection.recv()))
            except (EOFError, OSError):
                found.append((job, Outcome("crashed", self._replace(worker))))
        return found

    def close(self, *, at_once: bool = False) -> None:
        """End the workers: those at a job too, where `at_once`."""
        for worker in self._workers:
            if at_once:
                worker.process.terminate()
            worker.connection.close()
        until = time.monotonic() + _PATIENCE
        for worker in self._workers:
            worker.process.join(max(0.0, until - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._hold.close()
        self._alive.close()

    def _start(self, setting: Setting) -> _Worker:
        ours, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=serve, args=(theirs, self._alive, setting), name="cbtalk-worker")
        process.start()
        theirs.close()
        return _Worker(process, ours, setting)

    def _replace(self, worker: _Worker) -> str:
        """Start a new process in the place of a dead one; says how that one died."""
        worker.process.join()
        worker.connection.close()
        new = self._start(worker.setting)
        code = worker.process.exitcode
        worker.process, worker.connection = new.process, new.connection
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"the worker was ended by {name}{', perhaps for lack of memory' if -code == signal.SIGKILL else ''}"
        return f"the worker ended with code {code}"


def next_job(waiting: list[Job], source: Path | None) -> Job:
    """Takes a job off `waiting` for a worker that had `source` last: of the same source, where there is one soon."""
    place = next((i for i, job in enumerate(waiting[:_SOON]) if job.source == source), 0)
    return waiting.pop(place)
