"""A part of a video, exact to the frame."""

import math
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from cbtalk.errors import ConfigError, InputError
from cbtalk.media.container import container_kind, main_video, open_container, packets
from cbtalk.media.frames import BadFrame, Frame
from cbtalk.media.kinds import DECODING_TIMES_ONLY
from cbtalk.media.timeline import Timeline

_TYPED = Fraction(1, 1000)  # seconds: times are typed to the millisecond; frames of 30 a second begin between two
# In these codecs a key frame is one from which all that is shown after it can be decoded.
_KEY_FRAMES = {"h264", "hevc", "av1", "vp9", "vp8", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg", "prores", "dnxhd"}


@dataclass(frozen=True)
class Span:
    """The part of a video that plays from `start` seconds on, for `duration` seconds; None: to the end.

    Its first frame is the one that is shown at `start`, and its last one ends with the duration, so that parts which
    follow each other join without a gap.
    """

    start: Fraction = Fraction(0)
    duration: Fraction | None = None

    @classmethod
    def of(cls, start: float, duration: float | None) -> "Span":
        """From numbers that a user typed; ConfigError where they make no sense."""
        if not (math.isfinite(start) and start >= 0):
            raise ConfigError(f"start {start}: must be 0 seconds or more")
        if duration is not None and not (math.isfinite(duration) and duration > _TYPED):
            raise ConfigError(f"duration {duration}: must be more than {float(_TYPED)} seconds")
        # By their decimals: 0.2 is the time of the fifth frame of 25 a second, and no hair later.
        return cls(Fraction(str(start)), None if duration is None else Fraction(str(duration)))

    def begun(self, time: Fraction) -> bool:
        """Whether what is shown from `time` on is there when the part starts."""
        return time <= self.start + _TYPED

    def over(self, time: Fraction) -> bool:
        """Whether what is shown from `time` on comes after the part."""
        return self.duration is not None and time >= self.start + self.duration - _TYPED

    def ticks(self, time_base: Fraction) -> tuple[int, int | None]:
        """Start and end in ticks, the start rounded down, so that what begins after it has a later tick."""
        end = None if self.duration is None else round((self.start + self.duration) / time_base)
        return math.floor(self.start / time_base), end

    def length(self, whole: float | None) -> float | None:
        """Seconds that are left of a video of so many; None where nothing tells it."""
        left = [] if whole is None else [max(0.0, whole - float(self.start))]
        wanted = [] if self.duration is None else [float(self.duration)]
        return min(left + wanted, default=None)

    def most_frames(self, whole: int | None, rate: Fraction) -> int | None:
        """The number of frames to expect of a video of so many, None where nothing tells it."""
        if whole is None or self == WHOLE:
            return whole
        left = max(0, whole - math.floor(self.start * rate))
        return left if self.duration is None else min(left, math.ceil(self.duration * rate))


WHOLE = Span()


def cut(path: Path, frames: Iterable[Frame | BadFrame], span: Span, time_base: Fraction) -> Iterator[Frame | BadFrame]:
    """The frames that are shown within a part of a video, their times counted from its start.

    Raises InputError where the video ends before the part starts.
    """
    start, end = span.ticks(time_base)
    group: list[Frame | BadFrame] = []  # the last good frame and the bad ones behind it
    last_ends = 0
    for frame in frames:
        if isinstance(frame, BadFrame):
            group.append(frame)
            continue
        if span.over(frame.pts * time_base):
            last_ends = end or 0  # what is shown when the part is over is shown to its end
            break
        if not span.begun(frame.pts * time_base):
            yield from _placed(group, span, time_base)
        group, last_ends = [frame], frame.pts + frame.duration
    if last_ends <= start:
        ends = f"ends at {float(last_ends * time_base):.2f} s" if group else "shows nothing then"
        raise InputError(f"{path}: cannot start at {float(span.start):.2f} s: the video {ends}")
    yield from _placed(group, span, time_base, last_ends)


def _placed(
    group: list[Frame | BadFrame], span: Span, time_base: Fraction, last_ends: int | None = None
) -> Iterator[Frame | BadFrame]:
    """Frames with their times counted from the start; the good one among them is shown to `last_ends` at most."""
    start, end = span.ticks(time_base)
    for frame in group:
        if frame.pts is None:
            yield frame
            continue
        pts = 0 if span.begun(frame.pts * time_base) else frame.pts - start
        if not isinstance(frame, BadFrame):
            ends = frame.pts + frame.duration if last_ends is None else last_ends
            ends = ends if end is None else min(ends, end)
            yield replace(frame, pts=pts, duration=max(1, ends - start - pts))
        elif not span.over(frame.pts * time_base):
            yield replace(frame, pts=pts)


def first_needed(path: Path, start: Fraction) -> int:
    """The number of the packet of a video, from 0, from which it must be decoded to be shown from `start` on.

    That of the last key frame but one before it, in case the last is damaged; found by reading the packets and not by
    the file's index: the clock that counts is the one of `Timeline`, which is made of all packets.
    """
    last = needed = 0
    if start > 0:
        with closing(key_frames(path)) as keys:
            for number, ticks, time_base in keys:
                if ticks * time_base > start:
                    break
                needed, last = last, number
    return needed


def key_frames(path: Path) -> Generator[tuple[int, int, Fraction], None, None]:
    """The number of each key frame's packet and when it is shown: ticks, and seconds of a tick.

    None of a video whose key frames are not ones from which all that is shown after them can be decoded.
    """
    with open_container(path) as container:
        stream = main_video(container)
        if stream is None or stream.codec_context is None or container_kind(container) in DECODING_TIMES_ONLY:
            return
        if stream.codec_context.codec.canonical_name not in _KEY_FRAMES:
            return
        number = 0
        for packet in Timeline(container).placed(packets(container)):
            if isinstance(packet, str) or packet.stream is not stream:
                continue
            if packet.is_keyframe and packet.pts is not None:
                yield number, packet.pts, packet.time_base
            number += 1
