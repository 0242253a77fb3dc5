"""Options of a render."""

import math
from dataclasses import dataclass

from cbtalk.errors import ConfigError
from cbtalk.media.span import Span
from cbtalk.model.smooth import SMOOTHEST
from cbtalk.options.render import MOST_SIDE, STRONGEST, DrivingFace, Movement, Part, Result, SourceFace


@dataclass(frozen=True)
class DrivingOptions(Part, DrivingFace):
    """Options for reading the driving video, of the groups `DrivingFace` and `Part`.

    `crop` None: the square is that of the face which `face` names in each scene.
    """

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
            raise ConfigError("--follow finds the square that follows a face; leave out --driving-crop with it")
        if not 0 <= self.smooth <= SMOOTHEST:
            raise ConfigError(f"smooth {self.smooth}: must be 0 to {SMOOTHEST:g} seconds")
        Span.of(self.start, self.duration)


@dataclass(frozen=True)
class RenderOptions(Result, Movement, SourceFace):
    """Options for animating a portrait, of the groups `SourceFace`, `Movement` and `Result`.

    `crop` None: the square is that of the face which `face` names. A loop has no sound of the driving video.
    `output_size` None: the model's own size, with `paste` the source's.
    """

    driving: DrivingOptions = DrivingOptions()

    def __post_init__(self) -> None:
        """Raise ConfigError for numbers out of range, and for choices that contradict each other."""
        if not 0 <= self.strength <= STRONGEST:
            raise ConfigError(f"strength {self.strength}: must be 0 to {STRONGEST:g}")
        if not (math.isfinite(self.fade) and self.fade > 0):
            raise ConfigError(f"fade {self.fade}: must be more than 0 seconds")
        if self.motion == "absolute" and (self.adapt_scale or self.best_frame or self.strength != 1):
            raise ConfigError(
                "--adapt-scale, --best-frame and --strength belong to relative motion; "
                "leave them out with --motion absolute"
            )
        if self.loop is not None and self.compare:
            raise ConfigError("a loop has no driving images to compare with; leave out --loop or --compare")
        if self.compare and (self.paste or self.output_size is not None):
            others = {"--paste": self.paste, "--output-size": self.output_size is not None}
            named = " and ".join(name for name, given in others.items() if given)
            raise ConfigError(f"--compare shows the squares as the model sees them; leave out {named} with it")
        if self.output_size is not None and not (16 <= self.output_size <= MOST_SIDE and self.output_size % 2 == 0):
            raise ConfigError(f"output size {self.output_size}: must be an even number from 16 to {MOST_SIDE}")
