"""The output folder of a run: logs, previews, checkpoints and weights; written by its first process alone."""

import logging
import math
import sys
import time
from collections.abc import Mapping

from torch import Tensor
from tqdm import tqdm

from cbtalk.errors import SystemFailure
from cbtalk.model.checkpoint import save_weights
from cbtalk.train.config_text import write_config
from cbtalk.train.figures import StepFigures, StepRow, check, means
from cbtalk.train.logs import RunLog
from cbtalk.train.preview import Preview
from cbtalk.train.state import save_checkpoint
from cbtalk.train.trainer import Trainer, learning_rate

logger = logging.getLogger(__name__)

WEIGHTS_NAME, BEST_NAME = "weights.safetensors", "best.safetensors"  # the newest, those of least validation error
CONFIG_NAME = "config.yaml"  # of the run as it is, with all defaults
SHOWN = ("total", "pixel", "perceptual")
READ_EVERY = 50  # steps: the figures of so many are read, and checked, at once


class Record:
    """Writes what comes of a trainer's steps.

    Args:
        shown: what is seen of the run while it trains.
        shard_mb: checkpoints are written in files of at most this many MiB.
    """

    def __init__(self, trainer: Trainer, shown: Preview, *, shard_mb: int | None = None) -> None:
        self.trainer = trainer
        self.shard_mb = shard_mb
        self.settings = trainer.config.run
        self.output = self.settings.output
        self.preview = shown
        self.figures = StepFigures()
        self.rows: list[StepRow] = []  # read, not yet logged
        write_config(self.output / CONFIG_NAME, trainer.config)
        self.log = RunLog(self.output, resumed_step=trainer.step)
        self.saved_at = self.logged_at = time.monotonic()

    def after_step(self, figures: Mapping[str, Tensor]) -> str | None:
        """Writes what is due; a disk that is full costs what it cannot take, not the run.

        Returns:
            A line about the newest steps, where they were logged.

        Raises:
            TrainingError: too many steps in a row were not finite.
        """
        trainer, settings, logged = self.trainer, self.settings, None
        self.figures.add(trainer.step, figures)
        try:
            if _due(trainer.step, settings.log_every):
                logged = self._log()
            elif _due(trainer.step, READ_EVERY):
                self._read()
            if _due(trainer.step, settings.sample_every):
                self._show()
            if self._checkpoint_due():
                self._read()  # a run that has diverged ends before it takes the place of what was good
                if not int(trainer.bad_steps):
                    self.save()
        except (SystemFailure, OSError) as failure:
            logger.warning("step %d: %s; training goes on", trainer.step, failure)
        return logged

    def finish(self) -> None:
        """Writes what is left when the run ends. Raises TrainingError as above."""
        self._read()
        if self.rows:
            self._log()
        self.log.close()
        self.save()

    def save(self) -> None:
        """A checkpoint and the averaged weights."""
        trainer, folder = self.trainer, self.output / "checkpoints"
        keep = self.settings.keep_checkpoints
        save_checkpoint(folder, trainer.step, trainer.state(), keep=keep, shard_mb=self.shard_mb)
        save_weights(self.output / WEIGHTS_NAME, trainer.average, notes=self._notes())
        self.saved_at = time.monotonic()

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

    def _log(self) -> str:
        """Writes the means since the last row; returns the speed and a few of them for the progress bar."""
        self._read()
        rows, self.rows = self.rows, []
        figures = means(rows)
        figures["learning_rate"] = learning_rate(self.trainer.config, self.trainer.step - 1)
        now, parts = time.monotonic(), self.trainer.timer.read()
        figures["samples_per_second"] = len(rows) * self.settings.batch_size / (now - self.logged_at)
        figures |= {f"share_{name}": seconds / sum(parts.values()) for name, seconds in parts.items()}
        self.logged_at = now
        self.log.write_training(self.trainer.step, figures)
        losses = " ".join(f"{name} {figures[name]:.4g}" for name in SHOWN if name in figures)
        shares = " ".join(f"{name} {figures[f'share_{name}']:.0%}" for name in parts)
        return f"{losses}, {figures['samples_per_second']:.3g} samples/s: {shares}"

    def _show(self) -> None:
        step = self.trainer.step
        figures = self.preview.show(self.trainer.average, self.output / "samples" / f"{step:08d}.png")
        if _error(figures) < min(map(_error, self.log.validation.rows), default=math.inf):
            save_weights(self.output / BEST_NAME, self.trainer.average, notes=self._notes())
        self.log.write_validation(step, figures)
        tqdm.write(
            f"step {step}: " + ", ".join(f"{name} {value:.4f}" for name, value in figures.items()), file=sys.stderr
        )


def _error(figures: Mapping[str, float | str]) -> float:
    """By which validations are compared: the error of whole images, and that of mouth and eyes where it is known."""
    return float(figures["l1"]) + float(figures.get("expression") or 0.0)


def _due(step: int, every: int) -> bool:
    """Whether something is to be done after a step that is done every so many steps; 0: never."""
    return every > 0 and step % every == 0
