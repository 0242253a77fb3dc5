"""Runs of training that take seconds."""

from collections.abc import Callable
from pathlib import Path

from cbtalk.train.state import checkpoints

MakeConfig = Callable[..., Path]


def saved(output: Path) -> list[int]:
    """Steps of the checkpoints of a run."""
    return [int(path.stem.removeprefix("step_")) for path in checkpoints(output / "checkpoints")]
