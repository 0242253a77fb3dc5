"""A batch from its manifest to the last video: planned, given to workers, entered in the ledger."""

import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Never

import torch
from tqdm import tqdm

from cbtalk import __version__
from cbtalk.batch.job import Job
from cbtalk.batch.ledger import Ledger, open_ledger, sweep
from cbtalk.batch.pool import Pool
from cbtalk.batch.process_pool import ProcessPool
from cbtalk.batch.ray_pool import RayPool
from cbtalk.batch.remote_files import Url, sweep_urls
from cbtalk.batch.worker import DOWNLOADS, MOTIONS, Outcome, Setting
from cbtalk.digest import combined
from cbtalk.errors import InputError, SystemFailure
from cbtalk.file_names import printable
from cbtalk.interruptions import Interruptions
from cbtalk.model.checkpoint import weights_file
from cbtalk.options.batch import Limits
from cbtalk.options.machine import Weights

_INTERRUPTED = ("running jobs are finished, then the batch ends; once more ends them too", "running jobs are ended")
_TICK = 0.2  # seconds between looks at what the user wants


@dataclass(frozen=True)
class BatchOptions(Limits):
    """Options of the work on a batch.

    weights, dtype: for `cbtalk.load`. gpus: their numbers, a worker each; none: workers on the CPU. threads: of each
    worker on the CPU; None: this machine's cores divided among them, on a cluster one. ray: address of a cluster of Ray
    whose actors are the workers, None for this machine.
    """

    weights: str = Weights.weights
    dtype: torch.dtype = torch.float32
    gpus: tuple[int, ...] = ()
    workers: int = 1
    threads: int | None = None
    ray: str | None = None

    def workers_for(self, jobs: int) -> int:
        """Workers that so many jobs keep busy."""
        return min(len(self.gpus) or self.workers, jobs)

    def threads_of(self, workers: int) -> int:
        """Threads of each of so many workers."""
        if self.threads is not None:
            return self.threads
        return 1 if self.ray is not None else max(1, len(os.sched_getaffinity(0)) // workers)


@dataclass
class Summary:
    """The end of a batch. stopped: why it ended before its last job, None where it did not; signal: what stopped it."""

    done: int = 0
    already_done: int = 0
    failed: int = 0
    frames: int = 0
    seconds: float = 0.0
    stopped: str | None = None
    signal: int | None = None
    errors: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{self.done} done", f"{self.failed} failed"]
        if self.already_done:
            parts.insert(0, f"{self.already_done} done before")
        rate = self.frames / self.seconds if self.seconds else 0.0
        return f"{', '.join(parts)}; {self.frames} frames in {self.seconds:.1f} seconds, {rate:.1f} a second"


def run_batch(
    jobs: Sequence[Job],
    folder: Path,
    options: BatchOptions,
    *,
    progress: bool = False,
    interruptions: Interruptions | None = None,
) -> Summary:
    """Renders every job that is not done yet; stopped at any moment, the same call goes on where it was.

    The first interruption (SIGINT, SIGTERM, SIGHUP, or one asked of `interruptions`) lets the running jobs finish, the
    second ends them.

    Raises OutputError where another batch is at work in the folder, SystemFailure where no ledger can be made,
    WeightsError for weights that cannot be used, and TransferError where a URL cannot be looked at.
    """
    with open_ledger(folder) as ledger:
        summary = Summary()
        _sweep(jobs, folder)
        waiting = _plan(jobs, ledger, folder, options, progress)
        summary.already_done = len(jobs) - len(waiting)
        if waiting:
            with interruptions or Interruptions(_INTERRUPTED) as taken:
                _Run(ledger, folder, options, summary, taken, waiting).run(progress)
            shutil.rmtree(folder / DOWNLOADS, ignore_errors=True)
    return summary


def _sweep(jobs: Sequence[Job], folder: Path) -> None:
    """Removes what killed workers left."""
    sweep((job.output for job in jobs if isinstance(job.output, Path)), folder / MOTIONS)
    sweep_urls(job.output for job in jobs if isinstance(job.output, Url))
    shutil.rmtree(folder / DOWNLOADS, ignore_errors=True)


def _plan(jobs: Sequence[Job], ledger: Ledger, folder: Path, options: BatchOptions, progress: bool) -> list[Job]:
    """The jobs to be done, those of one source and the same options side by side, those begun before at the end."""
    weights = ledger.digest(weights_file(options.weights))
    digest = cache(ledger.digest)
    entries, by_name = [], {}
    ordered = sorted(jobs, key=lambda job: (str(job.source), job.words, str(job.driving), str(job.output)))
    for job in tqdm(ordered, desc="fingerprints", unit="job", disable=None if progress else True):
        name = output_name(job, folder)
        try:
            inputs = [digest(path) for path in job.inputs]
        except OSError as failure:
            raise InputError(f"{failure.filename}: cannot be read: {failure.strerror}") from failure
        words = json.dumps(dict(job.words), sort_keys=True)
        fingerprint = combined(__version__, weights, str(options.dtype), *inputs, words)
        entries.append((name, str(job.source), str(job.driving), words, fingerprint))
        by_name[name] = job
    return [by_name[output] for output in ledger.plan(entries)]


def output_name(job: Job, folder: Path) -> str:
    """The output of a job as the ledger names it: below the folder, or its URL."""
    return str(job.output) if isinstance(job.output, Url) else job.output.relative_to(folder).as_posix()


def worker_settings(folder: Path, options: BatchOptions, count: int) -> list[Setting]:
    """The settings of so many workers of a batch."""
    return [
        Setting(
            folder.resolve(),
            number,
            options.weights,
            options.dtype,
            options.gpus[number] if options.gpus else None,
            options.threads_of(count),
            options.motion_cache_mb << 20,
            options.download_cache_mb << 20,
        )
        for number in range(count)
    ]


class _Run:
    """One run of a batch's waiting jobs."""

    def __init__(
        self,
        ledger: Ledger,
        folder: Path,
        options: BatchOptions,
        summary: Summary,
        interruptions: Interruptions,
        waiting: list[Job],
    ) -> None:
        self.ledger, self.folder, self.options = ledger, folder, options
        self.summary, self.interruptions, self.waiting = summary, interruptions, waiting
        self.misfortunes: Counter[str] = Counter()  # crashes and failed transfers of each output's job

    def run(self, progress: bool) -> None:
        """Until no job is left, or the batch is stopped."""
        started = time.monotonic()
        pool = self._pool()
        self.interruptions.listen()  # Ray takes SIGTERM for itself
        try:
            with tqdm(desc="batch", total=len(self.waiting), unit="job", disable=None if progress else True) as bar:
                while pool.jobs() or (self.waiting and not self._stopping):
                    if self.interruptions.count > 1:
                        break
                    self._hand_out(pool)
                    for job, outcome in pool.outcomes(_TICK):
                        self._enter(job, outcome, bar)
        except SystemFailure as failure:
            self.summary.stopped = self.summary.stopped or str(failure)
        finally:
            unfinished = pool.jobs()
            pool.close()
            with suppress(SystemFailure):  # it is what ends the batch, and a running job waits again by itself
                for job in unfinished:
                    self.ledger.put_back(output_name(job, self.folder))
            self.summary.seconds = time.monotonic() - started
        if self.interruptions.count and (self.waiting or unfinished):
            self.summary.signal = self.interruptions.number
            self.summary.stopped = f"interrupted by {signal.Signals(self.interruptions.number).name}"

    @property
    def _stopping(self) -> bool:
        """Whether no more jobs are to be begun."""
        return self.interruptions.count > 0 or self.summary.stopped is not None

    def _pool(self) -> Pool[Any]:
        if self.options.ray is not None:
            return RayPool(self.options.ray, self._settings())
        return ProcessPool(self._settings())

    def _settings(self) -> list[Setting]:
        return worker_settings(self.folder, self.options, self.options.workers_for(len(self.waiting)))

    def _hand_out(self, pool: Pool[Any]) -> None:
        while self.waiting and pool.idle and not self._stopping:
            job = pool.give(self.waiting)
            self.ledger.started(output_name(job, self.folder))

    def _enter(self, job: Job, outcome: Outcome, bar: "tqdm[Never]") -> None:
        """Write down how a job ended."""
        name = output_name(job, self.folder)
        if outcome.kind == "done":
            self.ledger.done(name, outcome.frames, outcome.seconds, outcome.bytes, list(outcome.warnings))
            self.summary.done += 1
            self.summary.frames += outcome.frames
            bar.update()
            return
        assert outcome.error is not None
        if outcome.kind == "machine":
            self.summary.stopped = outcome.error
            self.ledger.put_back(name)
            return
        self.misfortunes[name] += 1
        again = outcome.kind in ("crashed", "transfer") and self.misfortunes[name] <= self.options.retries
        self.ledger.failed(name, outcome.error, again=again)
        if again:
            self.waiting.append(job)
            return
        self.summary.failed += 1
        where = f"line {job.line}: " if job.line is not None else ""
        self.summary.errors.append(printable(f"{where}{job.output.name}: {outcome.error}"))
        bar.update()
