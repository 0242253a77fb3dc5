"""Options of a training run beside its configuration."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cbtalk.options.words import FOLDER, NUMBER, OUTPUT_FOLDER, SECONDS, shown


@dataclass(frozen=True)
class Folders:
    """Folders in place of the configuration's."""

    data_root: Annotated[Path | None, FOLDER] = None
    """Folder of clips, or of shards."""
    output: Annotated[Path | None, OUTPUT_FOLDER] = None
    """Folder for weights, checkpoints and logs."""


@dataclass(frozen=True)
class Stops:
    """The end of this run, and its checkpoints."""

    max_steps: Annotated[int | None, NUMBER] = None
    """Stop after this many steps in all."""
    max_seconds: Annotated[float | None, SECONDS] = None
    """Stop after this much time."""
    shard_mb: Annotated[int | None, shown("MIB")] = None
    """Write checkpoints in files of at most this size each."""
