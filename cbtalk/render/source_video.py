"""A source that is a video: its frames by their times, and the places in them that are animated."""

from collections.abc import Generator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from cbtalk.errors import InputError
from cbtalk.media.scenes import SceneCuts
from cbtalk.media.video_reader import BadFrame, Frame, open_video
from cbtalk.render.driving import read_driving, whole_view
from cbtalk.render.framing import Place
from cbtalk.render.options import RenderOptions
from cbtalk.render.report import Report
from cbtalk.render.scene_squares import Search, at_rest, scene_squares

LOOK_SECONDS, MOST_LOOKS = 0.2, 64  # of `Looks`, in each scene


class SourceFrame(NamedTuple):
    """An image of a source (H, W, 3) uint8, and the number of its scene, counted from 0."""

    image: NDArray[np.uint8]
    scene: int


class SourceVideo:
    """The frames of a video, asked for by rising times; a context manager. Raises InputError as `open_video`.

    A frame that cannot be decoded is replaced by the one before; `undecoded` counts them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader = open_video(path)
        self.warnings = self._reader.info.warnings
        self.undecoded = 0
        self._frames = self._good()
        self._next = next(self._frames, None)
        if self._next is None:
            self._reader.close()
            raise InputError(f"{path}: no frame of the video can be decoded")
        self._now = self._next
        self._cuts, self._scene = SceneCuts(), 0

    def __enter__(self) -> Self:
        """Return the video itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._reader.close()

    @property
    def first(self) -> NDArray[np.uint8]:
        """The first frame (H, W, 3); before others are asked for."""
        return self._now.image

    def at(self, seconds: Fraction) -> SourceFrame | None:
        """The frame shown at a time, no earlier than the last one asked for; None from the end on."""
        while self._next is not None and self._next.pts * self._next.time_base <= seconds:
            self._now, self._next = self._next, next(self._frames, None)
            self._scene += self._cuts(self._now.image)
        ended = self._next is None and seconds >= (self._now.pts + self._now.duration) * self._now.time_base
        return None if ended else SourceFrame(self._now.image, self._scene)

    def _good(self) -> Generator[Frame, None, None]:
        for frame in self._reader:
            if isinstance(frame, BadFrame):
                self.undecoded += 1
            else:
                yield frame


def video_places(path: Path, options: RenderOptions, report: Report) -> tuple[Place, ...]:
    """The places that are animated in the scenes of a source video: the crop, or the squares of a person's face.

    `report` and errors as of `scene_squares`.
    """
    if options.crop is not None:
        return (options.crop,)
    search = Search(
        options.face,
        LOOK_SECONDS,
        MOST_LOOKS,
        at_rest,
        use="animated",
        option="--face",
        instead="give its square by --crop x,y,size, or --crop centre",
    )
    squares = scene_squares(path, read_driving(path, whole_view), search, report)
    return tuple(square.at(0.0) for square in squares)
