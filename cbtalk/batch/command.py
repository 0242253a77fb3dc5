"""The command `cbtalk batch`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from cbtalk.batch.check import faults_of
from cbtalk.batch.estimate import frame_seconds, frames_of, start_seconds
from cbtalk.batch.job import Job
from cbtalk.batch.ledger import NAME, is_at_work, read_ledger
from cbtalk.batch.manifest import FILES, pairs, read_manifest
from cbtalk.batch.ray_pool import cluster_workers
from cbtalk.batch.remote_files import Url, file_of, size_of
from cbtalk.batch.report import check_report, table, write_report
from cbtalk.batch.run import BatchOptions, Summary, output_name, run_batch
from cbtalk.csv_rows import refuse
from cbtalk.errors import ConfigError, InputError
from cbtalk.file_names import printable
from cbtalk.model.checkpoint import read_notes, weights_file
from cbtalk.model.hub import pinned
from cbtalk.options.batch import Limits, Pairs, Workers
from cbtalk.precision import dtype_of
from cbtalk.render.parse_options import why_unknown

_SHOWN = 10  # jobs of a plan


def show_status(ledger: Path, report: Path | None) -> int:
    """Prints the state of a batch, and writes it to a report."""
    entries = read_ledger(ledger)
    print(table(entries))
    folder = ledger if ledger.is_dir() else ledger.parent
    if not is_at_work(folder) and any(entry.state in ("running", "waiting") for entry in entries):
        print("no batch is at work here: what runs was stopped; the command that began it goes on")
    if report is not None:
        write_report(report, entries)
    return 0


def jobs_of(
    manifest: Path | None,
    of: Pairs,
    folder: Path,
    words: dict[str, str],
    weights: str,
    *,
    local: bool,
    progress: bool,
) -> list[Job]:
    """The jobs of a manifest or of two folders; every fault goes to standard error, and then InputError is raised."""
    if (manifest is None) == (of.sources is None and of.drivings is None):
        raise InputError("name either a manifest, or --sources and --drivings")
    for word, value in words.items():
        if word not in FILES and (reason := why_unknown(word)):
            raise InputError(f"--set {word}={value}: {reason}")
    if manifest is not None:
        jobs, faults = read_manifest(manifest, folder, words)
    else:
        if of.sources is None or of.drivings is None:
            raise InputError("--sources and --drivings go together")
        jobs, faults = pairs(of.sources, of.drivings, folder, of.pairs, words), []
    faults += faults_of(jobs, weights, local=local, progress=progress)
    refuse(str(manifest or f"{of.sources} and {of.drivings}"), faults)
    return jobs


def options_of(wanted: Workers, limits: Limits) -> BatchOptions:
    """The options of a batch; by default a worker for every GPU, or one for each core, of this machine or a cluster."""
    weights = pinned(wanted.weights)
    read_notes(weights_file(weights))
    for name, value in (("--workers", wanted.workers), ("--threads", wanted.threads)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} {value}: must be 1 or more")
    if min(vars(limits).values()) < 0:
        raise ConfigError("--retries, --motion-cache-mb and --download-cache-mb must be 0 or more")
    cores = len(os.sched_getaffinity(0))
    if wanted.ray is None:
        numbers, count = _gpus(wanted.gpus, wanted.device), wanted.workers or max(1, cores // (wanted.threads or 1))
    else:
        there, are_gpus = cluster_workers(wanted.ray, wanted.threads or 1)
        count = there if wanted.workers is None else wanted.workers
        numbers = tuple(range(count)) if are_gpus and wanted.device != "cpu" else ()
    dtype = dtype_of(wanted.precision, "cuda" if numbers else "cpu")
    return BatchOptions(
        weights=weights,
        dtype=dtype,
        gpus=numbers,
        workers=count,
        threads=wanted.threads,
        ray=wanted.ray,
        **vars(limits),
    )


def _gpus(gpus: str | None, device: str) -> tuple[int, ...]:
    there = torch.cuda.device_count() if device != "cpu" else 0
    if device == "cuda" and there == 0:
        raise ConfigError("--device cuda: torch sees no GPU here; `cbtalk doctor` shows its build")
    if gpus is None or gpus == "all":
        return tuple(range(there))
    if not all(part.strip().isdecimal() for part in gpus.split(",")):
        raise ConfigError(f"--gpus {gpus}: must be all, or numbers, for example 0,1")
    numbers = tuple(int(part) for part in gpus.split(","))
    if any(number >= there for number in numbers):
        raise ConfigError(f"--gpus {gpus}: torch sees {there} here; `cbtalk doctor` shows its build")
    return numbers


def show_plan(jobs: Sequence[Job], folder: Path, options: BatchOptions) -> int:
    """Prints what a batch would do, and how long it should take."""
    done = _done(folder)
    left = [job for job in jobs if printable(output_name(job, folder)) not in done]
    for job in left[:_SHOWN]:
        words = "".join(f" {name}={value}" for name, value in job.words)
        print(f"{job.output}: {job.source} by {job.driving}{words}")
    if len(left) > _SHOWN:
        print(f"and {len(left) - _SHOWN} more")
    before = f"; {len(jobs) - len(left)} more are done, if nothing has changed since" if len(left) < len(jobs) else ""
    workers = options.workers_for(len(left))
    if workers == 0:
        print(f"0 jobs{before}")
        return 0
    unknown = sum(isinstance(job.driving, Url) for job in left)
    if unknown:
        before = f", and {unknown} jobs more whose driving videos are behind URLs{before}"
    frames = frames_of(left)
    start = start_seconds(options, workers) if options.ray is None else None
    torch.set_num_threads(options.threads_of(workers))
    each = frame_seconds(options.weights, "cuda" if options.gpus else "cpu", options.dtype)
    begin = "without the start of Ray's workers" if start is None else f"{start:.1f} seconds to start"
    print(
        f"{len(left) - unknown} jobs, {frames} frames; {workers} workers, {begin}, {each:.3f} seconds a frame: "
        f"about {_duration((start or 0) + frames * each / workers)}{before}"
    )
    print("this is the model's time, after the checks; where reading or writing videos is slower, it takes longer")
    print("not checked: faces, which are looked for when a job begins, and what is in videos beyond their headers")
    return 0


def _done(folder: Path) -> set[str]:
    """Outputs that the ledger of a folder, if there is one, knows as done and that are there."""
    if not (folder / NAME).exists():
        return set()
    done = (entry.output for entry in read_ledger(folder) if entry.state == "done")
    return {output for output in done if size_of(file_of(output, folder)) is not None}


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"


def work(jobs: Sequence[Job], folder: Path, options: BatchOptions, report: Path | None, *, quiet: bool) -> int:
    """Runs a batch, tells how it ended, and returns the exit code: 0 only where every job is done."""
    if report is not None:
        check_report(report)
    summary = run_batch(jobs, folder, options, progress=not quiet)
    for error in summary.errors:
        print(f"error: {error}", file=sys.stderr)
    if summary.stopped is not None:
        print(f"error: {summary.stopped}; the same command goes on where it stopped", file=sys.stderr)
    if report is not None:
        write_report(report, read_ledger(folder))
    if not quiet:
        print(f"{folder / NAME}: {summary}")
    return _exit_code(summary)


def _exit_code(summary: Summary) -> int:
    if summary.signal is not None:
        return 128 + summary.signal
    return 1 if summary.failed or summary.stopped is not None else 0
