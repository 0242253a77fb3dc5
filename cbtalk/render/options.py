"""What a caller can choose."""

from dataclasses import dataclass
from typing import Literal

from cbtalk.errors import ConfigError
from cbtalk.faces import FaceChoice
from cbtalk.media.crop import Crop


@dataclass(frozen=True)
class DrivingOptions:
    """How the driving video is read.

    crop: the square to watch; None for that of the face which `face` names in each scene: the one that is longest in
    view, or one by its number (from left to right as they appear) or by a point near it. follow: that square moves with
    the face through the picture instead of resting in each scene. batch_size: frames that go through the model at once.
    max_frames: the end, where it comes before the video's.
    """

    crop: Crop | None = None
    batch_size: int = 4
    max_frames: int | None = None
    face: FaceChoice | Literal["longest"] = "longest"
    follow: bool = False

    def __post_init__(self) -> None:
        """Raise ConfigError for numbers below 1, and for a square that is given and to be found."""
        if self.batch_size < 1:
            raise ConfigError(f"batch size {self.batch_size}: must be 1 or more")
        if self.max_frames is not None and self.max_frames < 1:
            raise ConfigError(f"max frames {self.max_frames}: must be 1 or more")
        if self.follow and self.crop is not None:
            raise ConfigError("a face is followed by a square that is found; leave out the crop of the driving video")


@dataclass(frozen=True)
class RenderOptions:
    """How a portrait is animated.

    motion: "relative" moves the source as the driving face moves since its initial frame, "absolute" puts it where
    the driving face is. adapt_scale: multiply relative motion by the ratio of the faces' sizes. best_frame: the
    initial frame is the one most like the source instead of the first. crop: the square of the source to animate; None
    for that of the face which `face` names. compare: source, driving and result side by side.
    """

    motion: Literal["relative", "absolute"] = "relative"
    adapt_scale: bool = False
    best_frame: bool = False
    crop: Crop | None = None
    face: FaceChoice = "largest"
    compare: bool = False
    driving: DrivingOptions = DrivingOptions()

    def __post_init__(self) -> None:
        """Raise ConfigError for choices that contradict each other."""
        if self.motion == "absolute" and (self.adapt_scale or self.best_frame):
            raise ConfigError(
                "adapt scale and best frame belong to relative motion; leave them out with absolute motion"
            )
