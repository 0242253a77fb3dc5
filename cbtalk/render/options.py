"""Options of a render."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cbtalk.errors import ConfigError
from cbtalk.faces import FaceChoice
from cbtalk.media.crop import Crop
from cbtalk.media.encoder import Encoder
from cbtalk.media.span import Span
from cbtalk.model.smooth import SMOOTHEST

Loop = Literal["ping-pong", "cross-fade"]

STRONGEST = 2.0  # times the motion

MOST_SIDE = 4096  # px of an output's longer side


@dataclass(frozen=True)
class DrivingOptions:
    """Options for reading the driving video.

    crop: the square to watch; None for that of the face which `face` names in each scene: the one that is longest in
    view, or one by its number (from left to right as they appear) or by a point near it. follow: that square moves with
    the face through the picture instead of resting in each scene. batch_size: frames that go through the model at once.
    max_frames: the end, where it comes before the video's. start, duration: the part of the video, in seconds; None: to
    its end. smooth: time constant in seconds of the smoothing of its motion; 0 leaves it as it is.
    """

    crop: Crop | None = None
    batch_size: int = 4
    max_frames: int | None = None
    face: FaceChoice | Literal["longest"] = "longest"
    follow: bool = False
    start: float = 0.0
    duration: float | None = None
    smooth: float = 0.0

    @property
    def span(self) -> Span:
        """The part of the video."""
        return Span.of(self.start, self.duration)

    def __post_init__(self) -> None:
        """Raise ConfigError for numbers out of range, and for a square that is given and to be found."""
        if self.batch_size < 1:
            raise ConfigError(f"batch size {self.batch_size}: must be 1 or more")
        if self.max_frames is not None and self.max_frames < 1:
            raise ConfigError(f"max frames {self.max_frames}: must be 1 or more")
        if self.follow and self.crop is not None:
            raise ConfigError("a face is followed by a square that is found; leave out the crop of the driving video")
        if not 0 <= self.smooth <= SMOOTHEST:
            raise ConfigError(f"smooth {self.smooth}: must be 0 to {SMOOTHEST:g} seconds")
        Span.of(self.start, self.duration)


@dataclass(frozen=True)
class RenderOptions:
    """Options for animating a portrait.

    motion: "relative" moves the source as the driving face moves since its initial frame, "absolute" puts it where
    the driving face is. adapt_scale: multiply relative motion by the ratio of the faces' sizes. best_frame: the
    initial frame is the one most like the source instead of the first. crop: the square of the source to animate; None
    for that of the face which `face` names. compare: source, driving and result side by side. strength: of relative
    motion, 0 to 2 times the driving's. loop: the motion repeats without a jump, forth and back, or cross-faded over
    `fade` seconds. audio: where the sound comes from: the driving video (which a loop leaves without), a file, nowhere.
    paste: the result is laid back into the whole source, instead of being the output itself. output_size: the side of
    the result in pixels, with paste the longer side of the output; None for the model's own size, with paste for the
    source's. encoder: of the output.
    """

    motion: Literal["relative", "absolute"] = "relative"
    adapt_scale: bool = False
    best_frame: bool = False
    crop: Crop | None = None
    face: FaceChoice = "largest"
    compare: bool = False
    strength: float = 1.0
    loop: Loop | None = None
    fade: float = 0.5
    audio: Path | Literal["driving", "none"] = "driving"
    paste: bool = False
    output_size: int | None = None
    encoder: Encoder = "auto"
    driving: DrivingOptions = DrivingOptions()

    def __post_init__(self) -> None:
        """Raise ConfigError for numbers out of range, and for choices that contradict each other."""
        if not 0 <= self.strength <= STRONGEST:
            raise ConfigError(f"strength {self.strength}: must be 0 to {STRONGEST:g}")
        if not (math.isfinite(self.fade) and self.fade > 0):
            raise ConfigError(f"fade {self.fade}: must be more than 0 seconds")
        if self.motion == "absolute" and (self.adapt_scale or self.best_frame or self.strength != 1):
            raise ConfigError(
                "adapt scale, best frame and strength belong to relative motion; leave them out with absolute motion"
            )
        if self.loop is not None and self.compare:
            raise ConfigError("a loop has no driving pictures to compare with; leave out loop or compare")
        if self.compare and (self.paste or self.output_size is not None):
            raise ConfigError(
                "compare shows the squares as the model sees them; leave out paste and output size with it"
            )
        if self.output_size is not None and not (16 <= self.output_size <= MOST_SIDE and self.output_size % 2 == 0):
            raise ConfigError(f"output size {self.output_size}: must be an even number from 16 to {MOST_SIDE}")
