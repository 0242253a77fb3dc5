"""The training run: data, the loop with its logs, previews and checkpoints, and a clean end on a signal."""

import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cbtalk.errors import ConfigError, InputError
from cbtalk.media.clips import Clip, decode_clip, find_clips
from cbtalk.model.checkpoint import save_weights
from cbtalk.train import preview
from cbtalk.train.config import TrainConfig, load_config
from cbtalk.train.data import PairLoader, PairSampler
from cbtalk.train.logs import RunLog
from cbtalk.train.preview import Preview
from cbtalk.train.state import checkpoints, load_checkpoint, save_checkpoint
from cbtalk.train.trainer import Trainer, learning_rate

logger = logging.getLogger(__name__)

WEIGHTS_NAME = "weights.safetensors"


def run(
    config: Path,
    *,
    resume: bool = True,
    max_steps: int | None = None,
    max_seconds: float | None = None,
    output: Path | None = None,
    data_root: Path | None = None,
) -> Path:
    """Trains a talker; SIGINT and SIGTERM end it after the step in hand, with a checkpoint.

    Args:
        config: YAML file (see `TrainConfig`).
        resume: go on from the newest checkpoint in the output folder; False refuses a folder that has one.
        max_steps: stop after this many steps in all, ahead of `run.steps`.
        max_seconds: stop after this much time.
        output: instead of `run.output`.
        data_root: instead of `data.root`.

    Returns:
        The weights file of the moving average, in the output folder.

    Raises:
        ConfigError, InputError, WeightsError: the configuration, the clips or a checkpoint cannot be used.
        TrainingError: too many steps in a row had losses or gradients that are not finite.
    """
    settings = load_config(config)
    if output is not None:
        settings = replace(settings, run=replace(settings.run, output=output))
    if data_root is not None:
        settings = replace(settings, data=replace(settings.data, root=data_root))
    if settings.run.threads is not None:
        torch.set_num_threads(settings.run.threads)
    newest = checkpoints(settings.run.output / "checkpoints")[-1:]
    if newest and not resume:
        raise ConfigError(f"{newest[0]}: the output folder holds a run already; resume it or choose another folder")
    device = _device(settings.run.device)
    clips, frames = _decode(settings.data.root, settings)
    trainer = Trainer(settings, PairLoader(frames, _sampler(settings, clips, frames)), device)
    if newest:
        trainer.load_state(load_checkpoint(newest[0]))
        tqdm.write(f"resuming from {newest[0]}", file=sys.stderr)
    watched = frames if settings.data.validation is None else _decode(settings.data.validation, settings)[1]
    stride = math.ceil(len(watched) / preview.CLIPS)
    loop = Loop(trainer, Preview(watched[::stride], device))
    return loop.run(max_steps=max_steps, max_seconds=max_seconds)


class Loop:
    """Runs a trainer's steps and writes what comes of them into its output folder."""

    def __init__(self, trainer: Trainer, shown: Preview) -> None:
        self.trainer = trainer
        self.settings = trainer.config.run
        self.output = self.settings.output
        self.preview = shown
        self.saved_step = trainer.step
        self.saved_at = time.monotonic()
        self.sums: dict[str, Tensor] = {}
        self.summed = 0
        self.summed_since = time.monotonic()

    def run(self, *, max_steps: int | None, max_seconds: float | None) -> Path:
        """Steps until `run.steps`, a limit or a signal; returns the weights file."""
        trainer, settings = self.trainer, self.settings
        last = settings.steps if max_steps is None else min(max_steps, settings.steps)
        deadline = None if max_seconds is None else time.monotonic() + max_seconds
        log = RunLog(self.output, resumed_step=trainer.step)
        progress = tqdm(total=last, initial=trainer.step, unit="step", smoothing=0.05)
        with stop_requested() as stopped, progress:
            while trainer.step < last and not stopped.is_set() and (deadline is None or time.monotonic() < deadline):
                self._add(trainer.train_step())
                progress.update()
                if trainer.step % settings.log_every == 0:
                    progress.set_postfix_str(self._log(log))
                if trainer.step % settings.sample_every == 0:
                    self._show(log)
                if self._checkpoint_due():
                    self.save()
        log.close()
        self.save()
        return self.output / WEIGHTS_NAME

    def save(self) -> None:
        """A checkpoint and the averaged weights."""
        trainer = self.trainer
        save_checkpoint(self.output / "checkpoints", trainer.step, trainer.state(), keep=self.settings.keep_checkpoints)
        save_weights(self.output / WEIGHTS_NAME, trainer.average, notes={"steps": str(trainer.step)})
        self.saved_step, self.saved_at = trainer.step, time.monotonic()

    def _checkpoint_due(self) -> bool:
        seconds = self.settings.checkpoint_seconds
        overdue = seconds is not None and time.monotonic() - self.saved_at > seconds
        return overdue or self.trainer.step % self.settings.checkpoint_every == 0

    def _add(self, figures: dict[str, Tensor]) -> None:
        for name, value in figures.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value
        self.summed += 1

    def _log(self, log: RunLog) -> str:
        """Writes the means since the last row; returns a few of them for the progress bar."""
        now = time.monotonic()
        means = torch.stack([value.float() for value in self.sums.values()]).div(self.summed).tolist()
        figures = dict(zip(self.sums, means, strict=True))
        figures["learning_rate"] = learning_rate(self.trainer.config.optimizer, self.trainer.step - 1)
        figures["samples_per_second"] = self.summed * self.settings.batch_size / (now - self.summed_since)
        log.write_training(self.trainer.step, figures)
        self.sums, self.summed, self.summed_since = {}, 0, now
        return " ".join(f"{name} {figures[name]:.4g}" for name in ("total", "pixel", "perceptual") if name in figures)

    def _show(self, log: RunLog) -> None:
        step = self.trainer.step
        figures = self.preview.show(self.trainer.average, self.output / "samples" / f"{step:08d}.png")
        log.write_validation(step, figures)
        tqdm.write(
            f"step {step}: " + ", ".join(f"{name} {value:.4f}" for name, value in figures.items()), file=sys.stderr
        )


@contextmanager
def stop_requested() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; a second signal ends the program as it otherwise would."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {int(number): signal.getsignal(number) for number in signals}

    def request(number: int, frame: FrameType | None) -> None:
        event.set()
        signal.signal(number, before[number])

    for number in signals:
        signal.signal(number, request)
    try:
        yield event
    finally:
        for number in signals:
            signal.signal(number, before[number])


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"run.device {name!r} cannot be used: {error}") from error
    return device


def _decode(root: Path, settings: TrainConfig) -> tuple[list[Clip], list[np.ndarray]]:
    """The clips that have a pair of frames, and their frames. A clip that cannot be read is left out with a notice."""
    cache = settings.data.cache or settings.run.output / "frames"
    clips, frames = [], []
    for clip in tqdm(find_clips(root), desc=f"reading {root}", unit="clip", leave=False):
        try:
            decoded = decode_clip(clip, settings.model.image_size, cache)
        except InputError as error:
            logger.warning("left out: %s", error)
            continue
        if len(decoded) < 2:
            logger.warning("left out: %s: one frame only", clip.path)
            continue
        clips.append(clip)
        frames.append(decoded)
    if not clips:
        raise InputError(f"{root}: no clip in it that can be used")
    return clips, frames


def _sampler(settings: TrainConfig, clips: list[Clip], frames: list[np.ndarray]) -> PairSampler:
    return PairSampler(
        [(clip.identity, len(array)) for clip, array in zip(clips, frames, strict=True)],
        seed=settings.run.seed,
        horizontal_flip=settings.data.horizontal_flip,
        time_flip=settings.data.time_flip,
    )
