"""Options of shards. `cbtalk.dataset.FrameOptions` is made of `Frames`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from cbtalk.errors import ConfigError
from cbtalk.options.words import NUMBER, PIXELS, by_text, shown


def _quality(text: str) -> int | Literal["png"]:
    if text == "png":
        return "png"
    if not text.isdecimal():
        raise ConfigError(f"{text}: must be from 1 to 100, or png")
    return int(text)


@dataclass(frozen=True)
class Frames:
    """The frames in the shards."""

    size: Annotated[int, PIXELS] = 256
    """Width and height of the frames, the image_size of the model."""
    quality: Annotated[int | Literal["png"], by_text(_quality, "1-100|png"), shown()] = 95
    """Quality of the JPEG files; or png, without loss."""


@dataclass(frozen=True)
class Packing:
    """The shards, and the work."""

    shard_mb: Annotated[int, shown("MIB")] = 500
    """Size after which a new shard begins."""
    workers: Annotated[int | None, NUMBER] = None
    """Processes at work; one for each core without it."""
