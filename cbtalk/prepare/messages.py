"""Messages of a worker process about the video that it works on."""

from dataclasses import dataclass

from cbtalk.prepare.stretch import Stretch


@dataclass(frozen=True)
class Progress:
    """The share of the work that is done, 0 to 1."""

    share: float


@dataclass(frozen=True)
class Planned:
    """All stretches of the video, numbered by their places: clips to be cut, and what is left out."""

    stretches: tuple[Stretch, ...]


@dataclass(frozen=True)
class Finished:
    """A stretch that was to be cut: its file is complete, or it is left out after all."""

    number: int
    stretch: Stretch


@dataclass(frozen=True)
class Done:
    """Nothing is left to do. warnings: what is wrong with the file and did not keep it from being read."""

    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failed:
    """The video cannot be read; the others can."""

    reason: str


@dataclass(frozen=True)
class Aborted:
    """Nothing can go on: the output folder cannot be written."""

    error: Exception


Message = Progress | Planned | Finished | Done | Failed | Aborted
