"""The share of a worker's time that each stage of its jobs takes."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from cbtalk import ranges
from cbtalk.batch import Job
from cbtalk.batch.worker import Setting, Worker

STAGES = ("model", "encode", "faces", "decode", "rest")  # of several at once, the first takes the time


class _Log:
    """A sink of ranges that keeps the outermost ones of every thread: stage, begin and end."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, float, float]] = []
        self._local = threading.local()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        depth = getattr(self._local, "depth", 0)
        self._local.depth = depth + 1
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._local.depth = depth
            if depth == 0:
                self.spans.append((name if name in STAGES else "model", begin, time.perf_counter()))


def stage_shares(jobs: list[Job], weights: str, threads: int, scratch: Path) -> dict[str, float]:
    """Of all but the first of these jobs, done by a worker in this process: stages overlap, the shares do not."""
    worker = Worker(Setting(scratch, 0, weights, torch.float32, None, threads, 1 << 30, 0))
    log = _Log()
    assert worker.render(jobs[0]).kind == "done"
    begin = time.perf_counter()
    with ranges.watch(log):
        for job in jobs[1:]:
            assert worker.render(job).kind == "done"
    whole = time.perf_counter() - begin
    shares = {stage: seconds / whole for stage, seconds in partition(log.spans).items()}
    return shares | {"rest": 1 - sum(shares.values())}


def partition(spans: list[tuple[str, float, float]]) -> dict[str, float]:
    """Seconds of each stage; where several are under way, they are those of the one that STAGES names first."""
    changes = sorted((at, step, stage) for stage, *times in spans for at, step in zip(times, (1, -1), strict=True))
    running: dict[str, int] = defaultdict(int)
    seconds = dict.fromkeys(STAGES[:-1], 0.0)
    before = 0.0
    for at, step, stage in changes:
        first = next((name for name in STAGES if running[name]), None)
        if first is not None:
            seconds[first] += at - before
        running[stage] += step
        before = at
    return seconds
