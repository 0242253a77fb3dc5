"""Figures of training steps, kept on the device until they are read together."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from cbtalk.errors import TrainingError


class StepRow(NamedTuple):
    """The figures of one step."""

    step: int
    figures: dict[str, float]

    @property
    def bad_steps(self) -> int:
        """The number of steps in a row, this one included, that were not finite."""
        return int(self.figures["bad_steps"])

    @property
    def guilty(self) -> str:
        """The figures that are not finite."""
        return ", ".join(name for name, value in self.figures.items() if not math.isfinite(value))


class StepFigures:
    """Collects what steps return, without waiting for the device, until `read`."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, tuple[str, ...]]] = []
        self.values: list[Tensor] = []

    def add(self, step: int, figures: Mapping[str, Tensor]) -> None:
        """Takes the figures () of a step."""
        self.steps.append((step, tuple(figures)))
        self.values.append(torch.stack([value.detach().float() for value in figures.values()]))

    def read(self) -> list[StepRow]:
        """The rows since the last reading; waits for the device once."""
        values = iter(torch.cat(self.values).tolist() if self.values else [])
        rows = [StepRow(step, {name: next(values) for name in names}) for step, names in self.steps]
        self.steps, self.values = [], []
        return rows


def means(rows: list[StepRow]) -> dict[str, float]:
    """The mean of each figure over the steps that counted; of all where none did."""
    rows = [row for row in rows if not row.bad_steps] or rows
    names = dict.fromkeys(name for row in rows for name in row.figures if name != "bad_steps")
    columns = {name: [row.figures[name] for row in rows if name in row.figures] for name in names}
    return {name: math.fsum(column) / len(column) for name, column in columns.items()}


def check(rows: list[StepRow], limit: int) -> None:
    """Raises TrainingError where `limit` steps in a row were not finite."""
    for row in rows:
        if row.bad_steps >= limit:
            raise TrainingError(
                f"{row.bad_steps} steps in a row up to step {row.step} were not finite ({row.guilty}); "
                "lower optimizer.learning_rate, set optimizer.clip_norm, or resume from an older checkpoint"
            )
