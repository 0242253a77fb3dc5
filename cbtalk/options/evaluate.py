"""Options of an evaluation, which `cbtalk evaluate` and `cbtalk ablate` share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cbtalk.options.words import FILE, FOLDER, NUMBER, PIXELS, SECONDS, shown

Protocol = Literal["reconstruction", "cross"]
Portraits = Annotated[
    tuple[Path, ...],
    shown("FILE|FOLDER ...", help="Images, or folders of them, which each clip then drives in relative motion."),
]


@dataclass(frozen=True)
class Sampling:
    """The metrics and what they see."""

    models: Annotated[Path | None, FOLDER] = None
    """Folder of the networks for LPIPS, FID, landmarks, identity, head pose and expression, which else are left out."""
    every: Annotated[int, NUMBER] = 1
    """The networks see three frames in a row out of 3 x NUMBER."""
    batch_size: Annotated[int, NUMBER] = 8
    """Frames that the model takes at once."""


@dataclass(frozen=True)
class Measures(Sampling):
    """The metrics and what they see."""

    size: Annotated[int | None, PIXELS] = None
    """Images are compared at this size, those of the model resized to it; the model's own without it."""
    smooth: Annotated[float, SECONDS] = 0.0
    """Time constant of a smoothing of the driving motion, as in render."""


@dataclass(frozen=True)
class Shows:
    """Images to look at."""

    sheet: Annotated[Path | None, FILE] = None
    """Contact sheet to write (.png): source, driving and result at several moments."""
    beside: Annotated[Path | None, FILE] = None
    """Contact sheet (.png) of the same clips by other weights, whose results this one shows below its own."""
    videos: Annotated[Path | None, FOLDER] = None
    """Folder for comparison videos: source, driving and result side by side."""
