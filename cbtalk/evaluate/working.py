"""The jobs of an evaluation among processes: this one, workers of its own, or the ranks that torchrun started."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from multiprocessing import connection
from pathlib import Path

import torch
import torch.distributed as dist

from cbtalk.errors import CbtalkError
from cbtalk.evaluate.evaluator import Evaluator, Setting, serve
from cbtalk.evaluate.jobs import Job
from cbtalk.evaluate.parts import Parts
from cbtalk.worker_process import Worker, WorkerDied

_TICK = 0.2  # seconds between looks at whether to stop
_LONGEST_WAIT = timedelta(days=30)  # of a rank for the slowest


def work(
    jobs: Sequence[Job],
    evaluator: Evaluator,
    setting: Setting,
    parts: Parts,
    videos: Mapping[str, Path],
    workers: int,
    stop: Callable[[], bool],
) -> Generator[Job, None, None]:
    """Does jobs until `stop`, here or in several workers; yields each that has ended.

    Args:
        videos: files to write, by the titles of what they show.
    """
    if workers > 1:
        return _in_workers(jobs, setting, parts, videos, workers, stop)
    return _in_this_process(jobs, evaluator, videos, stop)


def _in_this_process(
    jobs: Sequence[Job], evaluator: Evaluator, videos: Mapping[str, Path], stop: Callable[[], bool]
) -> Generator[Job, None, None]:
    for job in jobs:
        if stop():
            return
        evaluator.do(job, _of(job, videos))
        yield job


def _in_workers(
    jobs: Sequence[Job],
    setting: Setting,
    parts: Parts,
    videos: Mapping[str, Path],
    workers: int,
    stop: Callable[[], bool],
) -> Generator[Job, None, None]:
    """In processes, among which torch's threads and the GPUs are divided.

    A worker that dies costs the job that it was at. When the iteration is given up, the workers are ended.
    """
    waiting = deque(jobs)
    settings = [replace(setting, device=_device(setting.device, number)) for number in range(min(workers, len(jobs)))]
    threads = max(1, torch.get_num_threads() // max(1, len(settings)))
    active: dict[connection.Connection, tuple[Worker, Setting, Job]] = {}

    def begin(worker: Worker, mine: Setting) -> None:
        job = waiting.popleft()
        worker.send((job, _of(job, videos)))
        active[worker.pipe] = worker, mine, job

    try:
        for mine in settings:
            begin(Worker(serve, mine, parts, threads), mine)
        while active:
            for pipe in connection.wait(list(active), _TICK):
                worker, mine, job = active.pop(pipe)  # type: ignore[call-overload]
                answer = _answer(worker, job, parts)
                if answer is not None:
                    worker.end()
                    raise answer
                yield job
                if not waiting or stop():
                    worker.end()
                elif worker.is_alive():
                    begin(worker, mine)
                else:
                    worker.end()
                    begin(Worker(serve, mine, parts, threads), mine)
    finally:
        for worker, _, _ in active.values():
            worker.end()


def _answer(worker: Worker, job: Job, parts: Parts) -> CbtalkError | None:
    try:
        answer: CbtalkError | None = worker.receive()
    except WorkerDied as death:
        parts.fail(job, f"its worker process died ({death}); the same command tries it again")
        return None
    return answer


def _of(job: Job, videos: Mapping[str, Path]) -> dict[str, Path]:
    return {title: videos[title] for title in job.shown if title in videos}


def _device(device: str, number: int) -> str:
    return f"cuda:{number % torch.cuda.device_count()}" if device == "cuda" else device


class Ranks:
    """The processes of torchrun, of which this one is number `rank` of `count`; alone, 0 of 1."""

    def __init__(self) -> None:
        self.rank, self.count = rank(), int(os.environ.get("WORLD_SIZE", "1"))

    def device(self, device: str) -> str:
        """This rank's own GPU, where the device is a GPU."""
        return _device(device, int(os.environ.get("LOCAL_RANK", "0"))) if self.count > 1 else device

    def share(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """This rank's part of the jobs."""
        return jobs[self.rank :: self.count]

    def meet(self) -> None:
        """Waits until all are here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def ranks() -> Iterator[Ranks]:
    """The ranks that torchrun's environment speaks of, joined for as long as the block runs."""
    joined = Ranks()
    if joined.count > 1:
        dist.init_process_group("gloo", timeout=_LONGEST_WAIT)
    try:
        yield joined
    finally:
        if joined.count > 1:
            dist.destroy_process_group()


def rank() -> int:
    """Number of this process among those that torchrun started; 0 alone."""
    return int(os.environ.get("RANK", "0"))
