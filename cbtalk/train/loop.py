"""The training run: data, the loop with its logs, previews and checkpoints, and a clean end on a signal."""

import logging
import math
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Never

import numpy as np
import torch
from tqdm import tqdm

from cbtalk.errors import ConfigError, Interruption, SystemFailure
from cbtalk.interruptions import Interruptions
from cbtalk.media.clips import Clip
from cbtalk.model.checkpoint import save_weights
from cbtalk.precision import float32_convolutions
from cbtalk.train import preview
from cbtalk.train.config import TrainConfig, face_users, load_config
from cbtalk.train.config_text import changes, to_plain, write_config
from cbtalk.train.data import hold_back, pair_loader, read_clips
from cbtalk.train.figures import StepFigures, StepRow, check, means
from cbtalk.train.landmarks import find_landmarks
from cbtalk.train.logs import RunLog
from cbtalk.train.preview import Preview
from cbtalk.train.state import checkpoints, load_checkpoint, save_checkpoint
from cbtalk.train.trainer import Trainer, learning_rate

logger = logging.getLogger(__name__)

WEIGHTS_NAME, BEST_NAME = "weights.safetensors", "best.safetensors"  # the newest, those of least validation error
CONFIG_NAME = "config.yaml"  # of the run as it is, with all defaults
SHOWN = ("total", "pixel", "perceptual")
INTERRUPTED = (
    "the step in hand is finished and saved; then the run ends",
    "still saving; once more ends at once, and what was done since the last checkpoint is lost",
)
READ_EVERY = 50  # steps: the figures of so many are read, and checked, at once


@float32_convolutions()
def run(
    config: Path | TrainConfig,
    *,
    resume: bool = True,
    max_steps: int | None = None,
    max_seconds: float | None = None,
    output: Path | None = None,
    data_root: Path | None = None,
    shard_mb: int | None = None,
) -> Path:
    """Trains a talker; SIGINT, SIGTERM and SIGHUP end it after the step in hand, with a checkpoint.

    Args:
        config: a configuration, or a YAML file of one.
        resume: go on from the newest checkpoint in the output folder; False refuses a folder that has one.
        max_steps: stop after this many steps in all, ahead of `run.steps`.
        max_seconds: stop after this much time.
        output: instead of `run.output`.
        data_root: instead of `data.root`.
        shard_mb: checkpoints are written in files of at most this many MiB.

    Returns:
        The weights file of the moving average, in the output folder.

    Raises:
        ConfigError, InputError, WeightsError: an argument, the configuration, the clips or a checkpoint cannot be used.
        TrainingError: too many steps in a row had losses or gradients that are not finite.
        Interruption: a signal ended the run; it is saved and can go on.
    """
    if shard_mb is not None and shard_mb < 1:
        raise ConfigError(f"--shard-mb {shard_mb}: must be 1 or more")
    settings = load_config(config) if isinstance(config, Path) else config
    if output is not None:
        settings = replace(settings, run=replace(settings.run, output=output))
    if data_root is not None:
        settings = replace(settings, data=replace(settings.data, root=data_root))
    if settings.run.threads is not None:
        torch.set_num_threads(settings.run.threads)
    newest = checkpoints(settings.run.output / "checkpoints")[-1:]
    if newest and not resume:
        raise ConfigError(f"{newest[0]}: the output folder holds a run already; resume it or choose another folder")
    init = settings.run.init
    if not newest and init is not None and not init.is_file():  # said before minutes of reading clips
        raise ConfigError(f"{init}: no such file; train it first, or change run.init")
    device = _device(settings.run.device)
    training = hold_back(read_clips(settings.data.root, settings), settings)
    trainer = Trainer(settings, pair_loader(training, settings, device), device)
    if newest:
        state = load_checkpoint(newest[0])
        trainer.load_state(state)
        tqdm.write(f"resuming from {newest[0]}", file=sys.stderr)
        for change in changes(state.get("config", {}), to_plain(settings)):
            tqdm.write(f"  changed since: {change}", file=sys.stderr)
    elif init is not None:
        tqdm.write(trainer.start_from(init), file=sys.stderr)
    watched = training if settings.data.validation is None else read_clips(settings.data.validation, settings)
    stride = math.ceil(len(watched) / preview.CLIPS)
    loop = Loop(trainer, _preview(watched[::stride], settings, device), shard_mb=shard_mb)
    return loop.run(max_steps=max_steps, max_seconds=max_seconds)


def _preview(clips: list[tuple[Clip, np.memmap]], settings: TrainConfig, device: torch.device) -> Preview:
    frames = [array for _, array in clips]
    points = None
    if settings.guidance.model is not None and face_users(settings):
        points = find_landmarks([Path(str(array.filename)) for array in frames], frames, settings.guidance.model)
    return Preview(frames, device, points)


class Loop:
    """Runs a trainer's steps and writes what comes of them into its output folder."""

    def __init__(self, trainer: Trainer, shown: Preview, *, shard_mb: int | None = None) -> None:
        self.trainer = trainer
        self.shard_mb = shard_mb
        self.settings = trainer.config.run
        self.output = self.settings.output
        self.preview = shown
        self.saved_at = time.monotonic()
        self.figures = StepFigures()
        self.rows: list[StepRow] = []  # read, not yet logged
        self.logged_at = time.monotonic()

    def run(self, *, max_steps: int | None, max_seconds: float | None) -> Path:
        """Steps until `run.steps`, a limit or a signal; returns the weights file."""
        trainer, settings = self.trainer, self.settings
        last = settings.steps if max_steps is None else min(max_steps, settings.steps)
        deadline = None if max_seconds is None else time.monotonic() + max_seconds
        write_config(self.output / CONFIG_NAME, trainer.config)
        log = RunLog(self.output, resumed_step=trainer.step)
        progress = tqdm(total=last, initial=trainer.step, unit="step", smoothing=0.05)
        with Interruptions(INTERRUPTED) as interruptions, progress:
            while trainer.step < last and not interruptions.count and (deadline is None or time.monotonic() < deadline):
                self._step(log, progress)
            self._read()
            if self.rows:
                self._log(log)
            log.close()
            self.save()
        if interruptions.count and trainer.step < last:
            name, saved = signal.Signals(interruptions.number).name, f"saved in {self.output}; the same command goes on"
            raise Interruption(f"{name} after step {trainer.step} of {settings.steps}, {saved}", interruptions.number)
        return self.output / WEIGHTS_NAME

    def save(self) -> None:
        """A checkpoint and the averaged weights."""
        trainer, folder = self.trainer, self.output / "checkpoints"
        keep = self.settings.keep_checkpoints
        save_checkpoint(folder, trainer.step, trainer.state(), keep=keep, shard_mb=self.shard_mb)
        save_weights(self.output / WEIGHTS_NAME, trainer.average, notes=self._notes())
        self.saved_at = time.monotonic()

    def _step(self, log: RunLog, progress: "tqdm[Never]") -> None:
        """One step, and what is due after it; a disk that is full costs what it cannot take, not the run."""
        trainer, settings = self.trainer, self.settings
        try:
            figures = trainer.train_step()
        except Exception:
            if trainer.whole:
                self.save()
            raise
        self.figures.add(trainer.step, figures)
        progress.update()
        try:
            if _due(trainer.step, settings.log_every):
                progress.set_postfix_str(self._log(log))
            elif _due(trainer.step, READ_EVERY):
                self._read()
            if _due(trainer.step, settings.sample_every):
                self._show(log)
            if self._checkpoint_due():
                self._read()  # a run that has diverged ends before it takes the place of what was good
                if not int(trainer.bad_steps):
                    self.save()
        except (SystemFailure, OSError) as failure:
            logger.warning("step %d: %s; training goes on", trainer.step, failure)

    def _checkpoint_due(self) -> bool:
        seconds = self.settings.checkpoint_seconds
        overdue = seconds is not None and time.monotonic() - self.saved_at > seconds
        return overdue or _due(self.trainer.step, self.settings.checkpoint_every)

    def _notes(self) -> dict[str, str]:
        return {"steps": str(self.trainer.step), "of": str(self.settings.steps)}

    def _read(self) -> None:
        """Takes in the figures of the steps since the last reading; TrainingError where too many are not finite."""
        rows = self.figures.read()
        for row in rows:
            if row.bad_steps:
                logger.warning("step %d skipped: not finite: %s", row.step, row.guilty)
        check(rows, self.settings.max_bad_steps)
        self.rows += rows if self.settings.log_every else []

    def _log(self, log: RunLog) -> str:
        """Writes the means since the last row; returns the speed and a few of them for the progress bar."""
        self._read()
        rows, self.rows = self.rows, []
        figures = means(rows)
        figures["learning_rate"] = learning_rate(self.trainer.config, self.trainer.step - 1)
        now, parts = time.monotonic(), self.trainer.timer.read()
        figures["samples_per_second"] = len(rows) * self.settings.batch_size / (now - self.logged_at)
        figures |= {f"share_{name}": seconds / sum(parts.values()) for name, seconds in parts.items()}
        self.logged_at = now
        log.write_training(self.trainer.step, figures)
        losses = " ".join(f"{name} {figures[name]:.4g}" for name in SHOWN if name in figures)
        shares = " ".join(f"{name} {figures[f'share_{name}']:.0%}" for name in parts)
        return f"{losses}, {figures['samples_per_second']:.3g} samples/s: {shares}"

    def _show(self, log: RunLog) -> None:
        step = self.trainer.step
        figures = self.preview.show(self.trainer.average, self.output / "samples" / f"{step:08d}.png")
        if _error(figures) < min(map(_error, log.validation.rows), default=math.inf):
            save_weights(self.output / BEST_NAME, self.trainer.average, notes=self._notes())
        log.write_validation(step, figures)
        tqdm.write(
            f"step {step}: " + ", ".join(f"{name} {value:.4f}" for name, value in figures.items()), file=sys.stderr
        )


def _error(figures: Mapping[str, float | str]) -> float:
    """By which validations are compared: the error of whole pictures, and that of mouth and eyes where it is known."""
    return float(figures["l1"]) + float(figures.get("expression") or 0.0)


def _due(step: int, every: int) -> bool:
    """Whether something is to be done after a step that is done every so many steps; 0: never."""
    return every > 0 and step % every == 0


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"run.device {name!r} cannot be used: {error}") from error
    return device
