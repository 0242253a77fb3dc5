"""Which frames of a damaged video are lost, told from the packets that went in and the frames that came out."""

import heapq

import av
from av.video.stream import VideoStream

# In these codecs every packet shows one frame, so that a packet without a frame is a loss even if no decoder complains.
_ONE_FRAME_A_PACKET = {"h264", "hevc", "av1", "vp9"}


class ExpectedFrames:
    """Time stamps of the packets whose frames are still to come."""

    def __init__(self, codec: str) -> None:
        """Start with nothing expected; `codec` is FFmpeg's name of the format, not of the decoder."""
        self.damaged = False  # whether anything was wrong so far
        self._errors = 0  # complaints of the decoder that no lost frame accounts for yet
        self._silent_losses = codec in _ONE_FRAME_A_PACKET
        self._started = False
        self._pending: list[int] = []
        self._without_time = False

    def error(self) -> None:
        """Note that the decoder complained. Decoding with several threads, it does so some packets late."""
        self._errors += 1
        self.damaged = True

    def add(self, packet: "av.Packet[VideoStream]") -> None:
        """Expect the frame of a packet."""
        ticks = packet.pts if packet.pts is not None else packet.dts
        if ticks is None:
            self._without_time = True
        elif not packet.is_discard:
            heapq.heappush(self._pending, ticks)

    def lost_before(self, pts: int | None) -> list[int | None]:
        """Time stamps of the frames lost before the one at `pts` (None: before the end); that one is expected no more.

        A time stamp is None where the file has none.
        """
        passed: list[int | None] = []
        while self._pending and (pts is None or self._pending[0] < pts):
            passed.append(heapq.heappop(self._pending))
        while self._pending and self._pending[0] == pts:
            heapq.heappop(self._pending)
        if self._without_time:
            passed = [None] * self._errors
        # Frames that lean on ones before the start of the file are no loss, nor is what a codec never meant to show.
        elif not (self._silent_losses and self._started):
            passed = passed[: self._errors]
        self._started = True
        self._errors = max(0, self._errors - len(passed))
        self.damaged = self.damaged or bool(passed)
        return passed
