"""Clips cut out of a raw video in one pass, each written while it is measured."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from cbtalk.faces import Square
from cbtalk.media.crop import CropBox, crop_resize
from cbtalk.media.video_reader import BadFrame, Frame, VideoInfo, VideoReader
from cbtalk.media.video_writer import VideoWriter
from cbtalk.prepare.frame_folder import FrameFolder
from cbtalk.prepare.options import PrepareOptions
from cbtalk.prepare.quality import Quality
from cbtalk.prepare.sightings import INTERVAL
from cbtalk.prepare.stretch import Reason, Stretch

CRF = 12  # of H.264: hardly to be told from the raw video
_COMMENT = "Cut out of a longer video by cbtalk prepare."


class Cut(NamedTuple):
    """A stretch that was cut, by its number; where it has no reason, its file is complete."""

    number: int
    stretch: Stretch


class _LeftOut(Exception):
    """Ends the writing of a clip that is not wanted after all."""


def cut(
    reader: VideoReader, stretches: Sequence[tuple[int, Stretch]], output: Path, options: PrepareOptions
) -> Iterator[Cut | float]:
    """Write the stretches, each with its number, below `output`; in between how far the video is read, in seconds.

    What turns out to be too short, blurred or still is not written.
    """
    waiting = sorted(stretches, key=lambda one: one[1].start, reverse=True)
    clips: list[_OpenClip] = []
    try:
        for frame in reader:
            if isinstance(frame, BadFrame):
                continue
            time = float(frame.pts * frame.time_base)
            for clip in [clip for clip in clips if clip.stretch.end <= time]:
                clips.remove(clip)
                yield clip.finish()
            while waiting and waiting[-1][1].start <= time:
                clips.append(_OpenClip(*waiting.pop(), output, options, reader.info))
            if not waiting and not clips:
                return
            for clip in clips:
                clip.add(frame, time)
            yield time
        for number, stretch in waiting:  # of annotations that go beyond the end
            clips.append(_OpenClip(number, stretch, output, options, reader.info))
        while clips:
            yield clips.pop(0).finish()
    except BaseException as error:
        for clip in clips:
            clip.abandon(error)
        raise


class _OpenClip:
    """A clip that is being written and measured."""

    def __init__(self, number: int, stretch: Stretch, output: Path, options: PrepareOptions, info: VideoInfo) -> None:
        assert stretch.square is not None and stretch.name is not None
        self.stretch = stretch
        self._number, self._path, self._options, self._info = number, output / stretch.name, options, info
        self._box = _whole_pixels(stretch.square)
        self._quality, self._looked = Quality(), -INTERVAL
        self._writer: VideoWriter | FrameFolder | None = None
        self._first = self._end = Fraction(0)
        self._frames = 0

    def add(self, frame: Frame, time: float) -> None:
        """Append a frame that is shown from `time` on."""
        if time >= self.stretch.end:
            return
        image = crop_resize(frame.image, self._box, self._options.size)
        if self._writer is None:
            self._first = frame.pts * frame.time_base
            self._writer = self._opened()
        self._writer.write(image, frame.pts - round(self._first / frame.time_base), frame.duration)
        if time >= self._looked + INTERVAL:
            self._quality.add(image)
            self._looked = time
        self._end = (frame.pts + frame.duration) * frame.time_base
        self._frames += 1

    def finish(self) -> Cut:
        """Complete the file, or leave none where the clip is not good enough."""
        start, end = float(self._first), min(float(self._end), self.stretch.end)
        measured = replace(self.stretch, frames=self._frames)
        if self._frames:
            measured = replace(measured, start=start, end=end)
            measured = replace(measured, sharpness=self._quality.sharpness, motion=self._quality.motion)
        reason = self._reason_against(measured)
        if reason is not None:
            self.abandon(_LeftOut())
            return Cut(self._number, replace(measured, reason=reason, name=None))
        writer, self._writer = self._writer, None
        assert writer is not None
        writer.__exit__(None, None, None)
        return Cut(self._number, measured)

    def abandon(self, error: BaseException) -> None:
        """Leave no file."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.__exit__(type(error), error, error.__traceback__)

    def _reason_against(self, measured: Stretch) -> Reason | None:
        # The frames of an annotation lie between those of the video, and damaged ones are missing.
        tolerance = 2 / float(self._info.average_rate)
        if measured.frames == 0 or measured.seconds < self._options.min_seconds - tolerance:
            return Reason.SHORT
        if self._quality.sharpness < self._options.min_sharpness:
            return Reason.BLURRED
        if self._quality.motion < self._options.min_motion:
            return Reason.STILL
        return None

    def _opened(self) -> VideoWriter | FrameFolder:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._options.frames:
            return FrameFolder(self._path).__enter__()
        size = self._options.size
        writer = VideoWriter(
            self._path,
            width=size,
            height=size,
            rate=self._info.average_rate,
            time_base=self._info.time_base,
            metadata={"comment": _COMMENT},
            crf=CRF,
        )
        return writer.__enter__()


def _whole_pixels(square: Square) -> CropBox:
    side = max(1, round(square.side))
    return CropBox(round(square.x - side / 2), round(square.y - side / 2), side)
