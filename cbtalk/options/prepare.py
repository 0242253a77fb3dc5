"""Options of prepare. `cbtalk.prepare.PrepareOptions` is made of them."""

from dataclasses import dataclass
from typing import Annotated, Literal

from cbtalk.options.words import NUMBER, PIXELS, SECONDS, Flag, shown


@dataclass(frozen=True)
class Clips:
    """The training clips that are wanted."""

    size: Annotated[Literal[256, 512], shown()] = 256
    """Width and height of the clips in pixels."""
    frames: Flag = False
    """Write a folder of PNG files for each clip, in place of an H.264 file."""
    identity: Annotated[Literal["folder", "file"], shown()] = "file"
    """The person in a video: its first folder below RAW, or its own name up to the first __ or #."""
    min_seconds: Annotated[float, SECONDS] = 2.0
    """Leave out what is shorter."""
    max_seconds: Annotated[float, SECONDS] = 20.0
    """Divide what is longer."""
    min_face: Annotated[int | None, PIXELS] = None
    """Least height of a face, brow to chin, in the raw video; half of its height in the clip without it."""
    min_sharpness: Annotated[float, NUMBER] = 0.315
    """Leave out what is more blurred: fine detail as a share of coarse detail."""
    min_motion: Annotated[float, NUMBER] = 1.5
    """Leave out faces that hardly move: mean change from the first image, in levels of 255."""
