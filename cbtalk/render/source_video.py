"""A source that is a video: its frames by their times, and the place in them that is animated."""

from collections.abc import Generator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cbtalk.errors import InputError
from cbtalk.faces import fixed_square
from cbtalk.media.video_reader import BadFrame, Frame, open_video
from cbtalk.render.framing import Place, faces_in, in_words
from cbtalk.render.options import RenderOptions
from cbtalk.render.people import Looks, chosen
from cbtalk.render.report import Report

LOOK_SECONDS, MOST_LOOKS = 0.2, 64  # of `Looks`


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

    def at(self, seconds: Fraction) -> NDArray[np.uint8] | None:
        """What is shown at a time, no earlier than the last one asked for: (H, W, 3), None from the end on."""
        while self._next is not None and self._next.pts * self._next.time_base <= seconds:
            self._now, self._next = self._next, next(self._frames, None)
        ended = self._next is None and seconds >= (self._now.pts + self._now.duration) * self._now.time_base
        return None if ended else self._now.image

    def _good(self) -> Generator[Frame, None, None]:
        for frame in self._reader:
            if isinstance(frame, BadFrame):
                self.undecoded += 1
            else:
                yield frame


def video_place(path: Path, options: RenderOptions, report: Report) -> Place:
    """The one place that is animated throughout a source video: the crop, or a square for the face of a person.

    Raises InputError where there is no face and no crop is given.
    """
    if options.crop is not None:
        return options.crop
    people = _looks(path).people()
    if not people:
        raise InputError(f"{path}: no face is found in the video; give its square by --crop x,y,size, or --crop centre")
    person = chosen(people, options.face)
    if len(people) > 1:
        words = in_words(options.face)
        report.notes.append(f"{path}: {len(people)} people; animated is {words} (--face chooses another)")
    return fixed_square(find.face for find in person)


def _looks(path: Path) -> Looks:
    """Faces of frames spread evenly over a video."""
    looks = Looks(LOOK_SECONDS, MOST_LOOKS)
    with open_video(path) as reader:
        for frame in reader:
            if isinstance(frame, Frame) and looks.due(time := float(frame.pts * frame.time_base)):
                looks.add(time, faces_in(frame.image))
    return looks
