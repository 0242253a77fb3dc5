"""Options of the page. `cbtalk.app.AppOptions` is made of them, and of what the machine comes to."""

from dataclasses import dataclass
from typing import Annotated

from cbtalk.options.words import NUMBER, shown


@dataclass(frozen=True)
class Address:
    """The address."""

    host: Annotated[str, shown("ADDRESS")] = "127.0.0.1"
    """Address to listen at. 127.0.0.1 is this machine alone; 0.0.0.0 lets in all who reach it, with no password."""
    port: Annotated[int, NUMBER] = 7860
    """Port to listen at."""


@dataclass(frozen=True)
class Largest:
    """The most that is taken."""

    max_upload: Annotated[int, shown("MB")] = 64
    """Largest file."""
    max_frames: Annotated[int, NUMBER] = 1500
    """Most frames of a driving clip that are rendered in one go."""
    max_megapixels: Annotated[int, NUMBER] = 24
    """Largest portrait, millions of pixels."""
    max_jobs: Annotated[int, NUMBER] = 100
    """Most renders of a batch."""
