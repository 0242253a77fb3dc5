"""Faults of the files of a batch, found before any work begins."""

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from cbtalk.batch.job import Job
from cbtalk.batch.manifest import Fault
from cbtalk.errors import CbtalkError, InputError
from cbtalk.media.audio_track import check_sound
from cbtalk.media.files import check_readable
from cbtalk.media.kinds import VIDEO_SUFFIXES
from cbtalk.media.video_reader import open_video
from cbtalk.render.motion_file import frames_in
from cbtalk.render.video import MOTION_SUFFIXES
from cbtalk.render.video import VIDEO_SUFFIXES as OUTPUT_SUFFIXES


def faults_of(jobs: Iterable[Job], *, progress: bool = False) -> list[Fault]:
    """Everything that keeps jobs from being done: files missing or of no known kind, outputs that collide.

    Headers are read, not whole files: damage behind them shows when the job runs.
    """
    jobs = list(jobs)
    problem = cache(_problem)
    inputs = {path.resolve() for job in jobs for path in job.inputs}
    outputs: dict[Path, Job] = {}
    faults = []
    for job in tqdm(jobs, desc="checking", unit="job", disable=None if progress else True):
        found = [problem(_check_source, job.source), problem(_check_driving, job.driving)]
        found += [problem(check_sound, path) for path in job.inputs[2:]]
        found.append(_wrong_output(job, inputs, outputs.setdefault(job.output.resolve(), job)))
        faults += [Fault(job.line, text) for text in found if text is not None]
    return faults


def _problem(check: Callable[[Path], None], path: Path) -> str | None:
    try:
        check(path)
    except CbtalkError as failure:
        return str(failure)
    return None


def _check_source(path: Path) -> None:
    if path.suffix.lower() in VIDEO_SUFFIXES:
        _check_video(path)
        return
    check_readable(path, "picture")
    try:
        Image.open(path).close()
    except Exception as failure:  # Pillow's readers raise nearly anything on damaged files
        raise InputError(f"{path}: is not a picture of a known kind; convert it to PNG or JPEG") from failure


def _check_driving(path: Path) -> None:
    if path.suffix.lower() in MOTION_SUFFIXES:
        frames_in(path)
    else:
        _check_video(path)


def _check_video(path: Path) -> None:
    with open_video(path):
        pass


def _wrong_output(job: Job, inputs: set[Path], first: Job) -> str | None:
    if first is not job:
        where = f"line {first.line}" if first.line is not None else f"{first.source.name} by {first.driving.name}"
        return f"{job.output.name}: the same output as {where}"
    if job.output.suffix.lower() not in OUTPUT_SUFFIXES:
        return f"{job.output.name}: the output's name must end in {' or '.join(OUTPUT_SUFFIXES)}"
    if job.output.resolve() in inputs:
        return f"{job.output}: the output is an input of this batch"
    if job.output.is_dir():
        return f"{job.output}: the output is a folder"
    return None
