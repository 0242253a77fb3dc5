"""Workers of a batch on one machine: processes that are replaced when they die."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from cbtalk.batch.choice import next_job
from cbtalk.batch.job import Job
from cbtalk.batch.worker import Outcome, Setting, serve
from cbtalk.errors import CbtalkError, SystemFailure
from cbtalk.worker_process import death_in_words, end_workers, start_worker

FAILED_STARTS = 3  # of workers, one after another, that end a batch


@dataclass(eq=False)
class _Worker:
    process: BaseProcess
    connection: Connection
    setting: Setting
    ready: bool = False
    job: Job | None = None
    source: Path | None = None  # of its last job


class Pool:
    """Processes with one setting each; `give` hands out jobs, `outcomes` says how they ended."""

    def __init__(self, settings: Sequence[Setting]) -> None:
        self._failed_starts = 0
        self._workers = [self._start(setting) for setting in settings]

    @property
    def idle(self) -> int:
        """Workers that wait for a job."""
        return sum(worker.ready and worker.job is None for worker in self._workers)

    def jobs(self) -> list[Job]:
        """The jobs that workers are at."""
        return [worker.job for worker in self._workers if worker.job is not None]

    def give(self, waiting: list[Job]) -> Job:
        """Takes a job off `waiting` for an idle worker."""
        worker = next(worker for worker in self._workers if worker.ready and worker.job is None)
        job = next_job(waiting, worker.source, self.jobs())
        worker.job, worker.source = job, job.source
        with suppress(OSError):  # it has died, which `outcomes` will say
            worker.connection.send(job)
        return job

    def outcomes(self, seconds: float) -> list[tuple[Job, Outcome]]:
        """The jobs that end within some seconds.

        A worker that died is replaced, and its job has crashed; so is one whose job crashed, for nobody knows what that
        left in its memory or on its GPU. Raises the CbtalkError for which a worker cannot be started.
        """
        waiting = {worker.connection: worker for worker in self._workers if worker.job is not None or not worker.ready}
        found = []
        for connection in wait(list(waiting), timeout=seconds):
            worker = waiting[connection]  # type: ignore[index]
            job, worker.job = worker.job, None
            try:
                answer = worker.connection.recv()
            except (EOFError, OSError):
                answer = Outcome("crashed", f"its worker process died ({self._death(worker)})")
            if job is None:
                self._started(worker, answer)
                continue
            if answer.kind == "crashed":
                self._replace(worker)
            found.append((job, answer))
        return found

    def close(self) -> None:
        """End the workers; jobs that they are at are wound up."""
        for worker in self._workers:
            worker.connection.close()
        end_workers([worker.process for worker in self._workers])

    def _start(self, setting: Setting) -> _Worker:
        ours, theirs = Pipe()
        process = start_worker(serve, theirs, setting)
        theirs.close()
        return _Worker(process, ours, setting)

    def _started(self, worker: _Worker, answer: CbtalkError | Outcome | None) -> None:
        """Note that a worker is there; one that died on the way is replaced, unless many did."""
        if isinstance(answer, CbtalkError):
            raise answer
        worker.ready = answer is None
        self._failed_starts = 0 if answer is None else self._failed_starts + 1
        if answer is not None and self._failed_starts == FAILED_STARTS:
            raise SystemFailure(f"no worker can be started: {answer.error}")
        if answer is not None:
            self._replace(worker)

    def _death(self, worker: _Worker) -> str:
        worker.process.join()
        return death_in_words(worker.process.exitcode)

    def _replace(self, worker: _Worker) -> None:
        """Start a new process in the place of one."""
        worker.connection.close()
        end_workers([worker.process])
        self._workers[self._workers.index(worker)] = self._start(worker.setting)
