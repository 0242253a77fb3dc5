"""Worker processes, each with one job at a time, that end with their parent and whose crash costs one job only."""

import contextlib
import time
from collections.abc import Generator, Sequence
from multiprocessing import connection

import torch

from cbtalk.prepare.messages import Aborted, Done, Failed, Message, Progress
from cbtalk.prepare.work import Job, work
from cbtalk.worker_process import Died, as_worker, served

_SECONDS_OF_PROGRESS = 0.5  # between two messages of progress


def run_jobs(jobs: Sequence[Job], workers: int) -> Generator[tuple[Job, Message], None, None]:
    """Do the jobs in at most so many processes, among which torch's threads are divided; yields what they tell.

    When the iteration is given up, the processes are ended before it returns, and leave nothing half written.
    """
    threads = max(1, torch.get_num_threads() // workers)
    with contextlib.closing(served(jobs, _serve, [(threads,)] * workers, is_last=_is_last)) as messages:
        for job, message in messages:
            if isinstance(message, Died):
                reason = f"its worker process died ({message.reason}); try it again alone"
                yield job, Failed(f"{job.source.path}: {reason}")
            else:
                yield job, message


def _is_last(message: Message) -> bool:
    return isinstance(message, Done | Failed | Aborted)


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
