"""Work on many files in processes, each with one at a time, whose crash costs one file only."""

import logging
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, TypeVar

import torch

from cbtalk.errors import CbtalkError, InputError, SystemFailure
from cbtalk.kept_warnings import kept_warnings
from cbtalk.worker_process import Died, as_worker, served

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
    with closing(served(jobs, _serve, [(work,)] * processes)) as answers:
        for job, answer in answers:
            yield job, _taken(job, answer)


def _taken(job: J, answer: "_Said | Died") -> Any:
    """The result in a worker's answer; what it logged is logged here."""
    if isinstance(answer, Died):
        if not answer.started:
            raise SystemFailure(
                f"processes cannot be started ({answer.reason}); a script must do its work under "
                "if __name__ == '__main__'"
            )
        return Failed(f"{job}: the process that read it died ({answer.reason})")
    for line in answer.logged:
        logger.warning("%s", line)
    if answer.fatal is not None:
        raise answer.fatal
    return answer.result


def _attempted(work: Callable[[J], R], job: J) -> R | Failed:
    try:
        return work(job)
    except InputError as error:
        return Failed(str(error))
    except CbtalkError:
        raise
    except Exception as error:  # one file must not stop the others
        return Failed(f"{job}: internal: {type(error).__name__}: {error}")


def _serve(pipe: Connection, work: Callable[[J], R]) -> None:
    """Do jobs until the pipe is closed."""
    torch.set_num_threads(1)
    with as_worker(), suppress(EOFError, OSError):  # the parent has closed the pipe, or is gone
        while True:
            job = pipe.recv()
            result, fatal = None, None
            with kept_warnings() as lines:
                try:
                    result = _attempted(work, job)
                except Exception as error:
                    fatal = error
            pipe.send(_Said(result, fatal, lines))
