"""The jobs of an evaluation among processes: this one, workers of its own, or the ranks that torchrun started."""

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from cbtalk.evaluate.evaluator import Evaluator, Setting, serve
from cbtalk.evaluate.jobs import Job
from cbtalk.evaluate.parts import Parts
from cbtalk.worker_process import Died, served

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

    Torch's threads and the GPUs are divided among the workers. One that dies costs the job that it was at.

    Args:
        videos: files to write, by the titles of what they show.
    """
    asked = [(job, {title: videos[title] for title in job.shown if title in videos}) for job in jobs]
    if workers == 1:
        for job, files in asked:
            if stop():
                return
            evaluator.do(job, files)
            yield job
        return
    devices = [_device(setting.device, number) for number in range(workers)]
    threads = max(1, torch.get_num_threads() // max(1, min(workers, len(jobs))))
    each = [(replace(setting, device=device), parts, threads) for device in devices]
    with closing(served(asked, serve, each, stop=stop)) as answers:
        for (job, _), answer in answers:
            if isinstance(answer, Died):
                parts.fail(job, f"its worker process died ({answer.reason}); the same command tries it again")
            elif answer is not None:
                raise answer
            yield job


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
