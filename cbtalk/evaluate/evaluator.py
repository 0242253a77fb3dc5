"""The work of an evaluation: one job after another, with one talker and one judge."""

import os
import traceback
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from cbtalk import __version__
from cbtalk.digest import combined, digest_of
from cbtalk.errors import CbtalkError, SystemFailure
from cbtalk.evaluate.cross_identity import evaluate_portraits
from cbtalk.evaluate.extractors import Extractors
from cbtalk.evaluate.jobs import Job
from cbtalk.evaluate.judge import Show, Vectors, make_judge
from cbtalk.evaluate.parts import Parts
from cbtalk.evaluate.same_identity import evaluate_clip
from cbtalk.evaluate.sheet import viewed
from cbtalk.kept_warnings import kept_warnings
from cbtalk.model.checkpoint import load, weights_file
from cbtalk.options.evaluate import Measures
from cbtalk.options.machine import Weights
from cbtalk.precision import float32_convolutions
from cbtalk.worker_process import as_worker

_OUT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)


@dataclass(frozen=True)
class Setting(Measures):
    """Options that all jobs share, as `evaluate_weights` explains them; `size` is None until the talker is there."""

    weights: str = Weights.weights
    extractors: Extractors | None = None
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    with_sheet: bool = False
    videos: Path | None = None

    def facts(self) -> dict[str, Any]:
        """The settings that the report names."""
        dtype = str(self.dtype).removeprefix("torch.")
        options = {"size": self.size, "every": self.every, "smooth": self.smooth}
        return {"weights": str(self.weights), "dtype": dtype, **options}

    def fingerprint(self) -> str:
        """Text that changes when the figures of a clip may."""
        files = sorted(self.models.iterdir()) if self.models is not None and self.models.is_dir() else []
        stamps = (f"{os.fsencode(file)!r} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files)
        names = [] if self.extractors is None else self.extractors.names
        options = replace(self, extractors=None, device=self.device.partition(":")[0])
        return combined(__version__, digest_of(weights_file(self.weights)), repr(options), *names, *stamps)


class Evaluator:
    """Does jobs, and keeps what comes of them in parts.

    Raises CbtalkError where weights or models cannot be used.
    """

    def __init__(self, setting: Setting, parts: Parts) -> None:
        self.talker = load(setting.weights, device=setting.device, dtype=setting.dtype)
        self.judge = make_judge(
            setting.models,
            setting.extractors,
            size=setting.size or self.talker.image_size,
            every=setting.every,
            batch_size=setting.batch_size,
            device=setting.device,
        )
        self._setting, self._parts = setting, parts

    @float32_convolutions()
    def do(self, job: Job, videos: dict[str, Path]) -> None:
        """Do a job; where its clip or source is at fault, or cbtalk, the reason is kept.

        Args:
            videos: files to write, by their titles.

        Raises:
            SystemFailure: the machine failed; the job is as if it had not begun.
        """
        bands: list[Image.Image] = []
        try:
            with kept_warnings() as warnings, ExitStack() as stack:
                figures, vectors = self._measured(job, self._shows(job, videos, bands, stack))
            self._parts.write(job, figures, vectors, bands, warnings)
        except SystemFailure:
            raise
        except _OUT_OF_MEMORY as error:
            raise SystemFailure("out of memory; a smaller --batch-size or fewer --workers need less") from error
        except CbtalkError as error:
            self._parts.fail(job, str(error))
        except Exception as error:
            traceback.print_exc()
            self._parts.fail(job, f"internal: {type(error).__name__}: {error}")

    def _measured(self, job: Job, shows: dict[str, Show]) -> tuple[dict[str, Any], Vectors]:
        smooth = self._setting.smooth
        if not job.pairs:
            return evaluate_clip(self.talker, job.clip, self.judge, shows.get(job.clip.name), smooth=smooth)
        portraits = {pair.source.name: pair.source.read(self.judge.size) for pair in job.pairs}
        by_source = {pair.source.name: shows[pair.title] for pair in job.pairs if pair.title in shows}
        anchor = job.pairs[0].anchor
        return evaluate_portraits(self.talker, job.clip, portraits, self.judge, by_source, smooth=smooth, anchor=anchor)

    def _shows(self, job: Job, videos: dict[str, Path], bands: list[Image.Image], stack: ExitStack) -> dict[str, Show]:
        """Callbacks that take the images of what is shown, by its title."""
        if not (self._setting.with_sheet or self._setting.videos):
            return {}
        titles = [title for title in (job.clip.name, *(pair.title for pair in job.pairs)) if title in job.shown]
        return {
            title: stack.enter_context(viewed(job.clip, self.judge.size, title, videos.get(title), bands))
            for title in titles
        }


def serve(pipe: Connection, setting: Setting, parts: Parts, threads: int) -> None:
    """Do the jobs that come through the pipe, each with its videos, until it is closed; answers None or a CbtalkError.

    After an error the process ends.
    """
    with as_worker(), suppress(EOFError, OSError):
        torch.set_num_threads(threads)
        try:
            evaluator = Evaluator(setting, parts)
            while True:
                evaluator.do(*pipe.recv())
                pipe.send(None)
        except CbtalkError as error:
            pipe.send(error)
