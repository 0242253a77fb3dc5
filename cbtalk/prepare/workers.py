"""Worker processes, each with one job at a time, that end with their parent and whose crash costs one job only."""

import contextlib
import time
from collections import deque
from collections.abc import Generator, Iterable
from multiprocessing import connection

import torch

from cbtalk.prepare.messages import Aborted, Done, Failed, Message, Progress
from cbtalk.prepare.work import Job, work
from cbtalk.worker_process import Worker, WorkerDied, as_worker

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
                worker = _Worker(_serve, threads)
                active[worker.pipe] = worker
                worker.give(waiting.popleft())
            for pipe in connection.wait(list(active)):
                worker = active[pipe]  # type: ignore[index]
                message = worker.message()
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


class _Worker(Worker):
    """A worker and the job that it is at."""

    job: Job

    def give(self, job: Job) -> None:
        """Let it do a job."""
        self.job = job
        self.send(job)

    def message(self) -> Message:
        """Its next message, or one that says that it is dead."""
        try:
            message: Message = self.receive()
        except WorkerDied as death:
            return Failed(f"{self.job.source.path}: its worker process died ({death}); try it again alone")
        return message


def _serve(pipe: connection.Connection, threads: int) -> None:
    """Do jobs until the pipe is closed."""
    torch.set_num_threads(threads)
    with as_worker(), contextlib.suppress(EOFError, OSError):  # the parent has closed the pipe, or is gone
        while True:
            _do(pipe.recv(), pipe)


def _do(job: Job, pipe: connection.Connection) -> None:
    """Tell every step of a job, of the many messages of progress but a few."""
    told = 0.0
    with contextlib.closing(work(job)) as messages:
        for message in messages:
            if isinstance(message, Progress):
                if time.monotonic() < told + _SECONDS_OF_PROGRESS:
                    continue
                told = time.monotonic()
            pipe.send(message)
