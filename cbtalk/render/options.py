"""What a caller can choose."""

from dataclasses import dataclass
from typing import Literal

from cbtalk.errors import ConfigError
from cbtalk.faces import FaceChoice
from cbtalk.media.crop import Crop

MOST_SIDE = 4096  # px of an output's longer side


@dataclass(frozen=True)
class DrivingOptions:
    """How the driving video is read.

    crop: the square to follow; None for that of the face which `face` names: the one that is longest in view, or one by
    its number (from left to right as they appear) or by a point near it. batch_size: frames that go through the model
    at once. max_frames: the end, where it comes before the video's.
    """

    crop: Crop | None = None
    batch_size: int = 4
    max_frames: int | None = None
    face: FaceChoice | Literal["longest"] = "longest"

    def __post_init__(self) -> None:
        """Raise ConfigError for numbers below 1."""
        if self.batch_size < 1:
            raise ConfigError(f"batch size {self.batch_size}: must be 1 or more")
        if self.max_frames is not None and self.max_frames < 1:
            raise ConfigError(f"max frames {self.max_frames}: must be 1 or more")


@dataclass(frozen=True)
class RenderOptions:
    """How a portrait is animated.

    motion: "relative" moves the source as the driving face moves since its initial frame, "absolute" puts it where
    the driving face is. adapt_scale: multiply relative motion by the ratio of the faces' sizes. best_frame: the
    initial frame is the one most like the source instead of the first. crop: the square of the source to animate; None
    for that of the face which `face` names. compare: source, driving and result side by side. paste: the result is laid
    back into the whole source, instead of being the output itself. output_size: the side of the result in pixels, with
    paste the longer side of the output; None for the model's own size, with paste for the source's.
    """

    motion: Literal["relative", "absolute"] = "relative"
    adapt_scale: bool = False
    best_frame: bool = False
    crop: Crop | None = None
    face: FaceChoice = "largest"
    compare: bool = False
    paste: bool = False
    output_size: int | None = None
    driving: DrivingOptions = DrivingOptions()

    def __post_init__(self) -> None:
        """Raise ConfigError for choices that contradict each other, and for a size that no video has."""
        if self.motion == "absolute" and (self.adapt_scale or self.best_frame):
            raise ConfigError(
                "adapt scale and best frame belong to relative motion; leave them out with absolute motion"
            )
        if self.compare and (self.paste or self.output_size is not None):
            raise ConfigError(
                "compare shows the squares as the model sees them; leave out paste and output size with it"
            )
        if self.output_size is not None and not (16 <= self.output_size <= MOST_SIDE and self.output_size % 2 == 0):
            raise ConfigError(f"output size {self.output_size}: must be an even number from 16 to {MOST_SIDE}")
