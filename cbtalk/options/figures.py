"""Options of figures."""

from dataclasses import dataclass
from typing import Annotated

from cbtalk.errors import ConfigError
from cbtalk.options.words import NUMBER, by_text, shown


def _place(text: str) -> tuple[int, int]:
    x, comma, y = text.partition(",")
    if not (comma and x.strip().isdecimal() and y.strip().isdecimal()):
        raise ConfigError(f"{text!r} is no place: x,y in pixels of the image, for example 128,160")
    return int(x), int(y)


@dataclass(frozen=True)
class Moments:
    """The moments and the place that are shown."""

    moment: Annotated[float, shown("0...1")] = 0.5
    """Moment of the driving clip whose inner values are shown, from 0 (first frame) to 1 (last frame)."""
    place: Annotated[tuple[int, int] | None, by_text(_place, "X,Y"), shown()] = None
    """Place of the image whose attention is shown, in pixels; its centre without it."""
    count: Annotated[int, NUMBER] = 6
    """Moments of the driving clip in the comparison, and for the usage."""
