"""Workers of a batch on one machine: processes that are replaced when they die."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from cbtalk.batch.job import Job
from cbtalk.batch.worker import Outcome, Setting, serve
from cbtalk.worker_process import death_in_words, end_worker, start_worker

_SOON = 100  # jobs among which a worker may choose


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

    def close(self) -> None:
        """End the workers; jobs that they are at are wound up."""
        for worker in self._workers:
            worker.connection.close()
        for worker in self._workers:
            end_worker(worker.process)

    def _start(self, setting: Setting) -> _Worker:
        ours, theirs = Pipe()
        process = start_worker(serve, theirs, setting)
        theirs.close()
        return _Worker(process, ours, setting)

    def _replace(self, worker: _Worker) -> str:
        """Start a new process in the place of a dead one; says how that one died."""
        worker.process.join()
        worker.connection.close()
        death = death_in_words(worker.process.exitcode)
        new = self._start(worker.setting)
        worker.process, worker.connection = new.process, new.connection
        return f"its worker process died ({death})"


def next_job(waiting: list[Job], source: Path | None) -> Job:
    """Takes a job off `waiting` for a worker that had `source` last: of the same source, where there is one soon."""
    place = next((i for i, job in enumerate(waiting[:_SOON]) if job.source == source), 0)
    return waiting.pop(place)
