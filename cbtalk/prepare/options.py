"""Options of prepare: the training clips that are wanted."""

import hashlib
from dataclasses import asdict, dataclass

from cbtalk.errors import ConfigError
from cbtalk.faces.framing import BOX_HEIGHT
from cbtalk.options.prepare import Clips

# Raised when the same video and options give other clips, so that they are made anew.
METHOD = 1
_ENLARGED = 0.5  # of the size in the clip, that a face has at least in the video


@dataclass(frozen=True)
class PrepareOptions(Clips):
    """Options of `prepare`; lengths in px of the raw video, sharpness and motion as `Quality` measures them."""

    def __post_init__(self) -> None:
        if not self.min_seconds > 0:
            raise ConfigError(f"--min-seconds {self.min_seconds:g}: must be more than 0")
        if not 2 * self.min_seconds <= self.max_seconds:
            raise ConfigError(f"--max-seconds {self.max_seconds:g}: must be at least twice --min-seconds")
        for name, value in (("face", self.min_face), ("sharpness", self.min_sharpness), ("motion", self.min_motion)):
            if value is not None and not value >= 0:
                raise ConfigError(f"--min-{name} {value:g}: must not be negative")

    @property
    def least_face(self) -> float:
        """The least height of a face, in px."""
        return self.min_face if self.min_face is not None else _ENLARGED * BOX_HEIGHT * self.size

    def digest(self) -> str:
        """Text that changes with the options and with the method."""
        return hashlib.sha256(repr((METHOD, sorted(asdict(self).items()))).encode()).hexdigest()
