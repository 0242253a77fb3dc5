"""Decoded frames in the order and at the times of their display, and the ones that were lost between them."""

import bisect
from collections.abc import Generator, Iterator
from fractions import Fraction
from typing import NamedTuple

import av
from av.video.stream import VideoStream

# In these codecs every packet shows one frame, so that a packet without a frame is a loss even if no decoder complains.
_ONE_FRAME_A_PACKET = {"h264", "hevc", "av1", "vp9"}
_WAITING = 8  # frames, for one that should be shown before them
_LONGEST_HOLE = 1500  # frames: more is a clock that was set, not images that were lost


class Shown(NamedTuple):
    """A decoded frame and its time in ticks, None where the file does not tell it."""

    frame: av.VideoFrame
    ticks: int | None


class Lost(NamedTuple):
    """A frame that was lost, and why, in words that complete the sentence "the frame ..."."""

    reason: str
    ticks: int | None


class DisplayOrder:
    """Pairs the frames that a decoder gives with the times of the packets that it took.

    A decoder gives frames in the order of display. Where the file's times are in another order (H.264 in AVI, and what
    was copied from it), the earliest time belongs to the first frame. After damage it is the frames that may come
    late, and they go by their times.
    """

    def __init__(self, codec: str, step: Fraction) -> None:
        """Start with nothing expected.

        codec: FFmpeg's name of the format, not of the decoder. step: ticks from frame to frame on the average.
        """
        self._silent_losses = codec in _ONE_FRAME_A_PACKET
        self._step = step
        self._expected: list[int] = []  # times of packets whose frames are still to come, rising
        self._times: list[int] = []  # of the frames in `_frames`, rising
        self._frames: list[av.VideoFrame] = []  # decoded, and not shown yet
        self._without_time = False
        self._damaged = False  # whether anything was wrong so far
        self._errors = 0  # complaints of the decoder that no lost frame accounts for yet
        self._reason = "is missing from the file"
        self._last: int | None = None  # time of the frame shown last
        self._near_damage = False  # whether something was wrong since then
        self._behind_hole = False  # whether the next packet comes behind a place that could not be read
        self._holes: list[int] = []  # times before which there was such a place, rising
        self._spacing: int | None = None  # the least distance of two frames
        self._fields = False  # whether the frame shown last consists of two fields, which may be packets of their own

    def add(self, packet: "av.Packet[VideoStream]") -> None:
        """Expect the frame of a packet that goes to the decoder."""
        ticks = packet.pts if packet.pts is not None else packet.dts
        if ticks is None:
            self._without_time = True
        elif not packet.is_discard:
            bisect.insort(self._expected, ticks)
            if self._behind_hole:
                bisect.insort(self._holes, ticks)
                self._behind_hole = False

    def hole(self, reason: str) -> None:
        """Take note of a place in the file that cannot be read, before the next packet."""
        self._reason = reason
        self._behind_hole = self._damaged = True

    def arrange(self, decoded: Iterator[av.VideoFrame | str]) -> Generator[Shown | Lost, None, None]:
        """Take frames, and the reasons for packets that gave none, as the decoder gives them, some packets late."""
        for item in decoded:
            if isinstance(item, str):
                self._reason = item
                self._errors += 1
                self._damaged = self._near_damage = True
                continue
            ticks = item.pts if item.pts is not None else item.dts
            if ticks is None:
                yield from self._lost_before(None)
                yield Shown(item, None)
                continue
            place = bisect.bisect_left(self._expected, ticks)
            if place < len(self._expected) and self._expected[place] == ticks:
                del self._expected[place]
            bisect.insort(self._times, ticks)
            self._frames.append(item)
            while self._frames and (len(self._frames) > _WAITING or not self._one_is_due()):
                yield from self._next()
        while self._frames:
            yield from self._next()
        yield from self._lost_before(None)

    def _one_is_due(self) -> bool:
        """Whether a frame that should come before the waiting ones is still to come."""
        return bool(self._expected) and self._expected[0] < self._times[0]

    def _next(self) -> Iterator[Shown | Lost]:
        ticks = self._times.pop(0)
        yield from self._lost_before(ticks)
        frame = min(self._frames, key=_ticks_of) if self._damaged else self._frames[0]
        self._frames.remove(frame)
        bad = frame.is_corrupt
        while self._holes and self._holes[0] <= ticks:
            self._holes.pop(0)
            self._near_damage = True
        if bad or self._near_damage:
            yield from self._hole_before(ticks)
        if self._last is not None and ticks > self._last:
            self._spacing = min(self._spacing or ticks - self._last, ticks - self._last)
        self._damaged = self._damaged or bad
        self._last, self._near_damage, self._fields = ticks, bad, frame.interlaced_frame
        yield Shown(frame, ticks)

    def _lost_before(self, ticks: int | None) -> Iterator[Lost]:
        """The frames lost before the one at `ticks` (None: before the end)."""
        place = len(self._expected) if ticks is None else bisect.bisect_left(self._expected, ticks)
        passed: list[int | None] = [time for time in self._expected[:place] if not self._is_second_field(time, ticks)]
        del self._expected[:place]
        if self._without_time:
            passed = [None] * self._errors
        # Frames that lean on ones before the start of the file are no loss, nor is what a codec never meant to show.
        elif not (self._silent_losses and self._last is not None):
            passed = passed[: self._errors]
        self._errors = max(0, self._errors - len(passed))
        for lost in passed:
            if lost is not None:
                yield from self._hole_before(lost)
            self._damaged = self._near_damage = True
            self._last = lost if lost is not None else self._last
            yield Lost(self._reason, lost)

    def _hole_before(self, ticks: int) -> Iterator[Lost]:
        """The frames of which not even the packets are there, told by the time that nothing fills."""
        hole = 0 if self._last is None else ticks - self._last
        if self._last is not None and 1.5 * self._step < hole < _LONGEST_HOLE * self._step:
            first, missing = self._last, round(hole / self._step) - 1
            for number in range(1, missing + 1):
                yield Lost(self._reason, first + hole * number // (missing + 1))

    def _is_second_field(self, time: int, following: int | None) -> bool:
        """Whether a packet without a frame is the second field of a frame: it lies half a frame behind it."""
        if not self._fields or self._last is None:
            return False
        spacing = self._spacing or (following - self._last if following else round(self._step))
        return 0.25 < (time - self._last) / spacing % 1 < 0.75


def _ticks_of(frame: av.VideoFrame) -> int:
    return frame.pts if frame.pts is not None else frame.dts or 0
