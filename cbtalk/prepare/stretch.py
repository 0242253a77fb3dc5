"""A stretch of a raw video: a training clip, or what is left out with the reason."""

from dataclasses import dataclass
from enum import StrEnum

from cbtalk.faces import Square


class Reason(StrEnum):
    """The reason why a stretch of a video is not among the clips."""

    SHORT = "too short"
    SMALL = "face too small"
    EDGE = "at the edge of the image"
    SEVERAL = "several people"
    BLURRED = "blurred"
    STILL = "still"
    NO_FACE = "no face"
    NO_ANNOTATION = "annotation missing"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Stretch:
    """From `start` until before `end`, in seconds of the video; lengths in its px.

    face: the height of the face, a median. name: of the clip, below the output folder. frames, sharpness and motion are
    known once it is cut. reason: why it is left out; None for a clip.
    """

    start: float
    end: float
    square: Square | None = None
    face: float | None = None
    reason: Reason | None = None
    name: str | None = None
    frames: int | None = None
    sharpness: float | None = None
    motion: float | None = None

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.start
