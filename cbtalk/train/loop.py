"""The steps of a run, until its end, a limit or a signal, and what happens when one fails."""

import signal
import time
from contextlib import suppress
from typing import Never

from torch import Tensor
from tqdm import tqdm

from cbtalk.errors import Interruption, LostProcess
from cbtalk.interruptions import Interruptions
from cbtalk.train import exchange
from cbtalk.train.record import Record
from cbtalk.train.trainer import Trainer

INTERRUPTED = (
    "the step in hand is finished and saved; then the run ends",
    "still saving; once more ends at once, and what was done since the last checkpoint is lost",
)


class Loop:
    """Runs a trainer's steps; several processes do each step together, and end after the same one.

    Args:
        record: what the first process writes of them; the others have none.
    """

    def __init__(self, trainer: Trainer, record: Record | None) -> None:
        self.trainer = trainer
        self.record = record
        self.signal = 0  # that ended the run, in any of the processes

    def run(self, *, max_steps: int | None, max_seconds: float | None) -> None:
        """Steps until `run.steps`, a limit or a signal, and saves.

        Raises:
            TrainingError, Interruption, LostProcess: in the first process, as `train_talker` does.
        """
        trainer, steps, quiet = self.trainer, self.trainer.config.run.steps, self.record is None
        last = steps if max_steps is None else min(max_steps, steps)
        deadline = None if max_seconds is None else time.monotonic() + max_seconds
        progress = tqdm(total=last, initial=trainer.step, unit="step", smoothing=0.05, disable=quiet)
        with Interruptions(INTERRUPTED, quiet=quiet) as interruptions, progress:
            while trainer.step < last and (figures := self._step(interruptions, deadline)) is not None:
                self._note(figures, progress)
            self._finish()
        number = self.signal or interruptions.number
        if self.record is not None and number and trainer.step < last:  # the others leave it the last word
            saved = f"saved in {self.record.output}; the same command goes on"
            raise Interruption(f"{signal.Signals(number).name} after step {trainer.step} of {steps}, {saved}", number)

    def _step(self, interruptions: Interruptions, deadline: float | None) -> dict[str, Tensor] | None:
        """A step, and its figures; None where the run is to end instead."""
        trainer = self.trainer
        try:
            late = deadline is not None and time.monotonic() >= deadline
            self.signal, ends = exchange.greatest(interruptions.number, late)
            return None if self.signal or ends else trainer.train_step()
        except LostProcess as lost:
            saved = self._rescue(lost)
            raise LostProcess(f"{lost}; {saved}, and the same command goes on from there") from lost
        except Exception as error:
            self._rescue(error)
            raise

    def _rescue(self, error: Exception) -> str:
        """Saves what the steps before a failed one made, unless the device may wait for a process that is gone."""
        waiting = isinstance(error, LostProcess) and self.trainer.device.type != "cpu"
        if self.record is None or not self.trainer.whole or waiting:
            return "the last checkpoint stands"
        self.record.save()
        return f"step {self.trainer.step} is saved"

    def _note(self, figures: dict[str, Tensor], progress: "tqdm[Never]") -> None:
        progress.update()
        logged = None if self.record is None else self.record.after_step(figures)
        if logged is not None:
            progress.set_postfix_str(logged)

    def _finish(self) -> None:
        """Saves; no process leaves before, because torchrun ends them all when one of them fails."""
        if self.record is not None:
            self.record.finish()
            with suppress(LostProcess):  # what it could have done is saved
                exchange.greatest(0)
        else:
            exchange.greatest(0)
