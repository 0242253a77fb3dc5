"""One clock for a whole file, from 0, where the file's own starts late, jumps, or starts again."""

from collections.abc import Iterable, Iterator
from fractions import Fraction

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from cbtalk.media.container import Packet, container_kind, main_video
from cbtalk.media.kinds import DECODING_TIMES_ONLY, STREAMED

_LEAP = 10  # seconds: FFmpeg's dts_delta_threshold; a clock that goes ahead by more in a live stream was set anew
_BACK = Fraction(1, 10)  # seconds: FFmpeg allows as much for careless writers, between whose key frames we do
_BACK_SHOWN = Fraction(1, 2)  # seconds: Matroska has times of display only, which go back between B-frames
_HELD = 256  # packets of sound that wait for the images of their clock
_ROLLS_ON = 0x0200  # FFmpeg's AVFMT_TS_DISCONT: the clock of the format may be set anew at any time


def average_rate(stream: VideoStream) -> Fraction:
    """Average frames per second; where the file gives none, or nonsense, 25."""
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate and 0 < rate <= 1000:
            return rate
    return Fraction(25)


class Timeline:
    """Moves packets to a clock that starts at 0 with the file and runs on where the file's own is set anew.

    The images lead: where their clock breaks, the first packet behind the break follows the last one before it. The
    sound goes with the clock of the images beside it, so that both stay in step.
    """

    def __init__(self, container: InputContainer) -> None:
        """Start a file; all its packets must go through `placed`, in their order."""
        self._kind = container_kind(container)
        self._rolls_on = bool(container.format.flags & _ROLLS_ON)
        start = max(0, container.start_time or 0)
        self._video = main_video(container)
        self._has_sound = container.streams.best("audio") is not None
        step = 1 / average_rate(self._video) if self._video else Fraction(1, 25)
        self._images = _Clock(Fraction(-start, av.time_base), step)
        self._sound = _Clock(Fraction(-start, av.time_base), Fraction(0))

    def placed(self, packets: Iterable["Packet | str"]) -> Iterator["Packet | str"]:
        """The packets with their times on the clock of the output; sound may wait for the images' next clock."""
        held: list[Packet] = []
        for packet in packets:
            if isinstance(packet, str):
                yield packet
            elif packet.stream is self._video:
                self._place_image(packet)
                yield packet
            elif held or not self._place_sound(packet):
                held.append(packet)
            else:
                yield packet
            if held and (self._images.offset != self._sound.offset or len(held) > _HELD):
                yield from self._released(held)
                held = []
        yield from self._released(held)

    def _place_image(self, packet: Packet) -> None:
        if self._kind in DECODING_TIMES_ONLY:
            packet.pts = packet.dts
        pts, dts = packet.pts, packet.dts
        if pts is not None and dts is not None and abs(pts - dts) * packet.time_base > _LEAP:
            packet.pts = dts + round(self._images.step / packet.time_base)  # it was that of another clock
        shown = self._kind == "matroska"
        time = _time(packet, shown=shown)
        if time is not None:
            clock = self._images
            back = clock.latest - (time + clock.offset)
            allowed = _BACK_SHOWN if shown else clock.step / 2 if packet.is_keyframe else _BACK
            if clock.started and (back > allowed or self._leaps(time)):
                clock.continue_at(time)
            clock.advance(time, packet)
        _shift(packet, self._images.offset)

    def _leaps(self, time: Fraction) -> bool:
        """Whether the images' clock was put forward: not where the sound has gone on all the while."""
        ahead = time + self._images.offset
        if self._kind not in STREAMED or ahead <= self._images.end + _LEAP:
            return False
        if self._has_sound and self._sound.started:
            return self._sound.end < (self._images.end + ahead) / 2
        return self._rolls_on

    def _place_sound(self, packet: Packet) -> bool:
        """Whether the packet could be placed on the sound's own clock or on the images' present one."""
        time, clock = _time(packet, shown=True), self._sound
        if time is not None:
            if self._breaks(time):
                if clock.offset == self._images.offset:
                    return False
                clock.offset = self._images.offset
            clock.advance(time, packet)
        _shift(packet, clock.offset)
        return True

    def _breaks(self, time: Fraction) -> bool:
        placed = time + self._sound.offset
        if not self._sound.started:
            return False
        return placed < self._sound.latest - _BACK or (
            self._kind in STREAMED and placed > max(self._sound.end, self._images.end) + _LEAP
        )

    def _released(self, held: list[Packet]) -> Iterator[Packet]:
        for packet in held:
            if not self._place_sound(packet):  # the images' clock did not break: the sound goes on by itself
                time = _time(packet, shown=True)
                assert time is not None
                self._sound.continue_at(time)
                self._place_sound(packet)
            yield packet


class _Clock:
    """The place of one stream on the clock of the output, all in seconds."""

    def __init__(self, offset: Fraction, step: Fraction) -> None:
        self.offset = offset  # from the file's clock to the output's
        self.latest = self.end = Fraction(0)  # of the latest packet on the output's clock: its time and where it ends
        self.started = False
        self.step = step  # how long a packet lasts that does not say so

    def continue_at(self, time: Fraction) -> None:
        """Let `time` on the file's clock follow what came so far."""
        self.offset = self.end - time

    def advance(self, time: Fraction, packet: Packet) -> None:
        """Take note of a packet."""
        placed = time + self.offset
        lasts = packet.duration * packet.time_base if packet.duration else self.step
        self.latest = max(placed, self.latest) if self.started else placed
        self.end = max(placed + lasts, self.end) if self.started else placed + lasts
        self.started = True


def _time(packet: Packet, *, shown: bool) -> Fraction | None:
    """The time at which a packet is shown, or is decoded, in seconds; where the file tells the other one only, that."""
    first, second = (packet.pts, packet.dts) if shown else (packet.dts, packet.pts)
    ticks = second if first is None else first
    return None if ticks is None else ticks * packet.time_base


def _shift(packet: Packet, offset: Fraction) -> None:
    ticks = round(offset / packet.time_base)
    packet.pts = None if packet.pts is None else packet.pts + ticks
    packet.dts = None if packet.dts is None else packet.dts + ticks
