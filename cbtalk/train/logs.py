"""Logs of a run: CSV files, TensorBoard where it is installed, and images."""

import csv
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from cbtalk.atomic import atomic_path
from cbtalk.model.images import to_frames

logger = logging.getLogger(__name__)


class CsvLog:
    """Rows that begin with the step; columns are those of the first row, and a new one gets room when it first comes.

    Opening it after a resume drops the rows of steps that will be run again.
    """

    def __init__(self, path: Path, *, resumed_step: int) -> None:
        self.path = path
        self.rows: list[dict[str, str]] = []
        self.columns: list[str] = []
        self.in_step = False  # whether the file holds these rows and no others
        if path.is_file() and resumed_step:
            with path.open(newline="") as file:
                reader = csv.DictReader(file)
                self.columns = list(reader.fieldnames or [])
                self.rows = [row for row in reader if int(row["step"]) <= resumed_step]

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Appends a row."""
        row = {"step": str(step), **{name: f"{value:.6g}" for name, value in figures.items()}}
        self.rows.append(row)
        new = [name for name in row if name not in self.columns]
        if new or not self.in_step:
            self.columns += new
            self._write_all()
            self.in_step = True
        else:
            self.in_step = False  # unless the row is written whole: a disk can be full
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self.columns, restval="").writerow(row)
            self.in_step = True

    def _write_all(self) -> None:
        with atomic_path(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)


class RunLog:
    """Training figures in `log.csv`, those of the preview in `validation.csv`, both in TensorBoard."""

    def __init__(self, output: Path, *, resumed_step: int) -> None:
        self.training = CsvLog(output / "log.csv", resumed_step=resumed_step)
        self.validation = CsvLog(output / "validation.csv", resumed_step=resumed_step)
        self.board = _tensorboard(output / "tensorboard", resumed_step)

    def write_training(self, step: int, figures: Mapping[str, float]) -> None:
        """Losses and speed after `step` steps."""
        self.training.write(step, figures)
        self._write_board("train", step, figures)

    def write_validation(self, step: int, figures: Mapping[str, float]) -> None:
        """The preview's figures after `step` steps."""
        self.validation.write(step, figures)
        self._write_board("validation", step, figures)

    def close(self) -> None:
        """Flushes what TensorBoard still holds."""
        if self.board is not None:
            with suppress(Exception):  # what it has not written by now is in the CSV files
                self.board.close()

    def _write_board(self, kind: str, step: int, figures: Mapping[str, float]) -> None:
        if self.board is None:
            return
        try:
            for name, value in figures.items():
                self.board.add_scalar(f"{kind}/{name}", value, step)
        except Exception as error:  # of a library that is there for convenience
            logger.warning("TensorBoard failed and is left out from step %d on: %s", step, error)
            self.board = None


def _tensorboard(folder: Path, resumed_step: int) -> Any:
    """A TensorBoard writer; None where tensorboard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=resumed_step + 1)


def write_image_grid(path: Path, columns: Sequence[Tensor]) -> None:
    """A PNG of the columns side by side, each (B, 3, H, W) in [-1, 1], one row for each of B."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.concatenate([np.concatenate(list(to_frames(column)), axis=0) for column in columns], axis=1)
    with atomic_path(path) as temporary:
        Image.fromarray(rows).save(temporary, format="PNG")
