"""Faults of the files of a batch, found before any work begins."""

import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cbtalk.atomic import LONGEST_NAME
from cbtalk.batch.job import Job
from cbtalk.batch.remote_files import File, Url
from cbtalk.csv_rows import Fault
from cbtalk.errors import CbtalkError, InputError
from cbtalk.file_names import real_path
from cbtalk.media.audio_track import check_sound
from cbtalk.media.crop import check_fits
from cbtalk.media.encoder import check_encoder
from cbtalk.media.images import read_image
from cbtalk.media.video_reader import open_video
from cbtalk.model.checkpoint import load
from cbtalk.options.places import Crop, CropBox
from cbtalk.render.motion_changes import cut
from cbtalk.render.motion_file import load_motion
from cbtalk.render.options import RenderOptions
from cbtalk.render.source import is_video
from cbtalk.render.video import VIDEO_SUFFIXES, driving_info


def faults_of(jobs: Iterable[Job], weights: str = "mini", *, local: bool = True, progress: bool = False) -> list[Fault]:
    """Everything that keeps jobs from being done: files missing or of no known kind, outputs that collide.

    Images and motion files are read, of videos the headers, of what is behind URLs nothing, but it must be there:
    other damage shows when the job runs. weights: a name or file for `cbtalk.load`, whose motion files are fit. local:
    this machine does the jobs; False leaves the encoders of another unchecked.
    """
    jobs = list(jobs)
    problem, motion_of = cache(_problem), cache(lambda: load(weights).motion_fingerprint())
    outputs = _Outputs(jobs)
    faults = []
    for job in tqdm(jobs, desc="checking", unit="job", disable=None if progress else True):
        found = [
            problem(_check_source, job.source, job.options.crop),
            problem(_check_driving, job.driving, job.options, motion_of),
        ]
        found += [problem(_check_audio, path) for path in job.inputs[2:]]
        if local:
            found.append(problem(check_encoder, job.options.encoder))
        found.append(outputs.problem_of(job))
        faults += [Fault(job.line, text) for text in found if text is not None]
    return faults


def _problem(check: Callable[..., None], *arguments: Any) -> str | None:
    try:
        check(*arguments)
    except CbtalkError as failure:
        return str(failure)
    return None


def _check_source(path: File, crop: Crop | None) -> None:
    if isinstance(path, Url):
        path.check_readable()
        return
    if is_video(path):
        with open_video(path) as reader:
            width, height = reader.info.width, reader.info.height
    else:
        height, width = read_image(path).shape[:2]
    if isinstance(crop, CropBox):
        check_fits(crop, width, height)


def _check_driving(path: File, options: RenderOptions, motion_of: Callable[[], str]) -> None:
    if isinstance(path, Url):
        path.check_readable()
        return
    info, driving = driving_info(path, options), options.driving
    if info is None:
        cut(path, load_motion(path, fingerprint=motion_of(), num_keypoints=None), driving.span)
        return
    if info.duration == 0:
        raise InputError(f"{path}: cannot start at {driving.start:.2f} s: the video ends before")
    if isinstance(driving.crop, CropBox):
        check_fits(driving.crop, info.width, info.height)


def _check_audio(path: File) -> None:
    path.check_readable() if isinstance(path, Url) else check_sound(path)


class _Outputs:
    """The outputs of jobs, which may be neither inputs nor the same, and need folders that can be made."""

    def __init__(self, jobs: list[Job]) -> None:
        self._inputs = {_real(path) for job in jobs for path in job.inputs}
        self._first: dict[File, Job] = {}  # job of each output
        for job in jobs:
            self._first.setdefault(_real(job.output), job)

    def problem_of(self, job: Job) -> str | None:
        """The fault of a job's output, in one line."""
        output, name = _real(job.output), job.output.name
        first = self._first[output]
        if first is not job:
            return f"{name}: the same output as {_where(first)}"
        if output.suffix.lower() not in VIDEO_SUFFIXES:
            return f"{name}: the output's name must end in {' or '.join(VIDEO_SUFFIXES)}"
        if output in self._inputs:
            return f"{job.output}: the output is an input of this batch"
        if isinstance(job.output, Url):
            return _problem(job.output.check_writable)
        assert isinstance(output, Path)
        if not _is_name(output):
            return f"{str(output)!r}: is no name of a file"
        if any(len(os.fsencode(part)) > LONGEST_NAME for part in output.parts):
            return f"{name[:40]}...: the output's name is longer than {LONGEST_NAME} bytes"
        if output.is_dir():
            return f"{job.output}: the output is a folder"
        for folder in output.parents:
            if folder in self._first or folder.is_file():
                what = f"the output of {_where(self._first[folder])}" if folder in self._first else "a file"
                return f"{job.output}: its folder {folder.name} is {what}"
        return None


def _real(file: File) -> File:
    """A file by its one name; URLs that lead to this machine are its files."""
    if isinstance(file, Url):
        return real_path(Path(file.path)) if file.protocol in ("file", "local") else file
    return real_path(file)


def _is_name(path: Path) -> bool:
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:  # half a character, which JSON can say
        return False


def _where(job: Job) -> str:
    return f"line {job.line}" if job.line is not None else f"{job.source.name} by {job.driving.name}"
