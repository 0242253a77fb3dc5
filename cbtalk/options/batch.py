"""Options of a batch. `cbtalk.batch.BatchOptions` is made of `Limits`, and of what `Workers` come to on a machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cbtalk.options.machine import Device, Precision, Weights
from cbtalk.options.words import FOLDER, NUMBER, shown

Pairing = Literal["all", "zip"]


@dataclass(frozen=True)
class Pairs:
    """Jobs of two folders, in place of a manifest."""

    sources: Annotated[Path | None, FOLDER] = None
    """Folder of images."""
    drivings: Annotated[Path | None, FOLDER] = None
    """Folder of driving videos or motion files, each of which drives images of the sources."""
    pairs: Annotated[Pairing, shown()] = "all"
    """Every image by every clip, or the first by the first and so on."""


@dataclass(frozen=True)
class Workers(Weights):
    """The model, and the machines."""

    workers: Annotated[int | None, NUMBER] = None
    """Processes on the CPU; one for each core without it."""
    threads: Annotated[int | None, NUMBER] = None
    """CPU threads of each worker; the cores divided among the workers without it."""
    gpus: Annotated[str | None, shown("N,N,...|all")] = None
    """Numbers of the GPUs to use, a worker each; all without it."""
    ray: Annotated[str | None, shown("ADDRESS|auto")] = None
    """A cluster of Ray (auto: this machine's own) whose nodes share the folders, or whose jobs have URLs."""
    device: Annotated[Device, shown()] = "auto"
    """Device of the model; auto takes the GPUs if there are any."""
    precision: Annotated[Precision, shown()] = "auto"
    """As for render; what was rendered in another precision is rendered anew."""


@dataclass(frozen=True)
class Limits:
    """Room and patience."""

    retries: Annotated[int, NUMBER] = 2
    """Times that a job is tried again after its worker crashed or a transfer failed."""
    motion_cache_mb: Annotated[int, shown("MIB")] = 1024
    """Room in the folder for kept motions of driving videos."""
    download_cache_mb: Annotated[int, shown("MIB")] = 2048
    """Room there for each worker's copies of files behind URLs, while it works."""
