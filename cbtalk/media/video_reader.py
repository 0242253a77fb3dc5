"""Video files as a stream of upright RGB frames with exact time stamps, in constant memory."""

import contextlib
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from cbtalk.errors import InputError
from cbtalk.media.expected_frames import ExpectedFrames
from cbtalk.media.files import check_readable, check_size
from cbtalk.media.upright import UprightRgb

# Containers of one self-contained file. Playlists, picture sequences and text art, which FFmpeg also calls formats, are
# left out: they would read other files than the one that was named.
_CONTAINERS = (
    "mov,mp4,matroska,webm,avi,gif,apng,mpegts,mpeg,mpegvideo,flv,asf,ogg,ivf,obu,nut,mxf,dv,h264,hevc,m4v,yuv4mpegpipe"
)
_CLOCK_RUNS_ON = 0x0200  # FFmpeg's AVFMT_TS_DISCONT: the format's clock does not start with the file
_MOST_PIXELS = 2**26  # 8192 x 8192: more is a damaged or hostile header
_MOST_THREADS = 8  # each holds frames of its own
_MOST_READ_ERRORS = 16  # in a row, before the rest of the file is given up


@dataclass(frozen=True)
class VideoInfo:
    """What is known before the frames are read.

    width, height: pixels of the upright frames. average_rate: frames per second. time_base: seconds per tick of the
    time stamps. frames, duration (seconds): as the file claims, None where it does not.
    """

    width: int
    height: int
    average_rate: Fraction
    time_base: Fraction
    frames: int | None
    duration: float | None
    has_audio: bool


@dataclass(frozen=True)
class Frame:
    """One picture: image (H, W, 3) uint8 RGB, upright; shown from pts * time_base seconds on; index counts from 0."""

    image: NDArray[np.uint8]
    pts: int
    time_base: Fraction
    index: int


@dataclass(frozen=True)
class BadFrame:
    """A picture that cannot be decoded, in its place among the frames.

    reason completes the sentence "the frame ...". pts is None where the file does not tell it.
    """

    index: int
    reason: str
    pts: int | None = None


def open_video(path: str | os.PathLike[str]) -> "VideoReader":
    """Open a video file of any common kind; use it as a context manager and iterate over it once.

    Raises InputError for a file that is missing, a folder, empty, damaged, cut off, a still picture, or without any
    picture that can be decoded.
    """
    path = Path(path)
    check_readable(path, "video")
    if _is_still_picture(path):
        raise InputError(f"{path}: is a still picture; a video or a motion file is needed")
    container = open_container(path)
    try:
        stream = _video_stream(path, container)
        return VideoReader(path, container, stream)
    except BaseException:
        container.close()
        raise


def open_container(path: Path) -> InputContainer:
    """Open a media file with FFmpeg, restricted to single local files. Raises InputError where it is none."""
    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
    try:
        # "file:" keeps names such as "http:x.mp4" from being taken for addresses.
        return av.open(f"file:{path}", mode="r", options=options, metadata_errors="replace")
    except (av.FFmpegError, ValueError) as error:
        raise InputError(f"{path}: is not a video, or damaged or cut off; get it again or convert it to MP4") from error


def clock_origin(container: InputContainer, time_base: Fraction) -> int:
    """The ticks at which the file's clock starts: 0, but for broadcast formats, whose clocks run on for days."""
    if not container.format.flags & _CLOCK_RUNS_ON or container.start_time is None:
        return 0
    return round(Fraction(container.start_time, av.time_base) / time_base)


class VideoReader:
    """The frames of one video, decoded with several threads, one after another as they are asked for.

    The pts are the file's own; only broadcast formats (MPEG-TS, MPEG-PS) are shifted so that the file starts at 0. They
    always increase: a missing one is set one frame after the one before, a repeated one one tick after it.
    """

    info: VideoInfo

    def __init__(self, path: Path, container: InputContainer, stream: VideoStream) -> None:
        """Decode up to the first good frame, which settles size and orientation. `open_video` is the way in."""
        self._path, self._container, self._stream = path, container, stream
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = min(os.cpu_count() or 1, _MOST_THREADS)
        self._time_base = stream.time_base or Fraction(1, 1000)
        self._rate = _rate(stream)
        self._origin = clock_origin(container, self._time_base)
        self._ahead: list[av.VideoFrame | str] = []
        self._expected = ExpectedFrames(stream.codec_context.codec.canonical_name)
        self._decoded = self._decode()
        self._upright = self._settle()
        self.info = VideoInfo(
            width=self._upright.width,
            height=self._upright.height,
            average_rate=self._rate,
            time_base=self._time_base,
            frames=stream.frames or None,
            duration=_duration(container, stream),
            has_audio=bool(container.streams.audio),
        )

    def __enter__(self) -> Self:
        """Return the reader itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; frames already handed out stay valid."""
        self._decoded.close()
        self._container.close()

    def __iter__(self) -> Iterator[Frame | BadFrame]:
        """Yield every frame in the order of time, the ones that cannot be decoded as BadFrame. Once only."""
        step = max(1, round(1 / (self._rate * self._time_base)))
        index, last, reason = 0, None, "is missing from the file"
        for item in self._items():
            if isinstance(item, str):
                reason = item
                self._expected.error()
                continue
            pts = self._pts(item, last, step)
            if last is not None and pts <= last:
                if self._expected.damaged:
                    continue  # overtaken by later frames after a loss: already reported as lost
                pts = last + 1
            for lost in self._expected.lost_before(pts + self._origin):
                yield self._lost(index, reason, lost)
                index += 1
            yield self._frame(item, pts, index)
            index, last = index + 1, pts
        for lost in self._expected.lost_before(None):
            yield self._lost(index, reason, lost)
            index += 1

    def _lost(self, index: int, reason: str, ticks: int | None) -> BadFrame:
        return BadFrame(index, reason, None if ticks is None or ticks < self._origin else ticks - self._origin)

    def _frame(self, frame: av.VideoFrame, pts: int, index: int) -> Frame | BadFrame:
        if frame.is_corrupt:
            self._expected.damaged = True
            return BadFrame(index, "is damaged", pts)
        try:
            return Frame(self._upright(frame), pts, self._time_base, index)
        except (av.FFmpegError, ValueError) as error:
            return BadFrame(index, f"cannot be converted to RGB: {_text(error)}", pts)

    def _pts(self, frame: av.VideoFrame, last: int | None, step: int) -> int:
        ticks = frame.pts if frame.pts is not None else frame.dts
        if ticks is None:
            return 0 if last is None else last + step
        if last is None and ticks < self._origin:
            self._origin = ticks  # an output cannot start before 0
        return ticks - self._origin

    def _settle(self) -> UprightRgb:
        """Decode up to the first good frame, keep what was decoded, and return its converter."""
        for item in self._decoded:
            self._ahead.append(item)
            if isinstance(item, av.VideoFrame) and not item.is_corrupt:
                upright = UprightRgb(item, self._stream.sample_aspect_ratio)
                check_size(self._path, upright.width, upright.height)
                return upright
        raise InputError(f"{self._path}: holds no picture that can be decoded; get the video again or convert it")

    def _items(self) -> Iterator[av.VideoFrame | str]:
        while self._ahead:
            yield self._ahead.pop(0)
        yield from self._decoded

    def _decode(self) -> Generator[av.VideoFrame | str, None, None]:
        """Decoded frames, and the reason for each packet that is none."""
        for packet in self._packets():
            if isinstance(packet, str):
                yield packet
                continue
            self._expected.add(packet)
            try:
                yield from self._stream.decode(packet)
            except (av.FFmpegError, ValueError) as error:
                yield f"cannot be decoded: {_text(error)}"
        with contextlib.suppress(av.FFmpegError, ValueError):
            yield from self._stream.decode(None)

    def _packets(self) -> Iterator["av.Packet[VideoStream] | str"]:
        """The stream's packets with something in them; after an unreadable place, those that follow it."""
        failures = 0
        while failures < _MOST_READ_ERRORS:
            try:
                for packet in self._container.demux(self._stream):
                    if packet.size:  # an empty one would end the decoding
                        failures = 0
                        yield packet
                return
            except av.FFmpegError as error:
                failures += 1
                yield f"cannot be read: {_text(error)}"


def _text(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _is_still_picture(path: Path) -> bool:
    """Whether Pillow knows the file as a picture of one frame; FFmpeg would play it as a very short video."""
    try:
        with Image.open(path) as image:
            # Pillow takes the first picture of an MPEG-1 video for a picture.
            return image.format != "MPEG" and not getattr(image, "is_animated", False)
    except Exception:  # not a picture, or a damaged one: FFmpeg will say
        return False


def _video_stream(path: Path, container: InputContainer) -> VideoStream:
    """The stream that holds the video, checked for what would make decoding it pointless."""
    # Cover art of music files is a video stream of one picture.
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        what = "sound but no video" if container.streams.audio else "no video"
        raise InputError(f"{path}: holds {what}; a video or a motion file is needed")
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise InputError(f"{path}: its video codec is not known; convert it to H.264")
    if stream.codec_context.width * stream.codec_context.height > _MOST_PIXELS:
        raise InputError(f"{path}: its frames have more than {_MOST_PIXELS // 10**6} million pixels; make them smaller")
    if container.format.name.startswith("mov") and _is_cut_off(path):
        raise InputError(f"{path}: is cut off: the end of the file is missing; get the video again")
    return stream


def _is_cut_off(path: Path) -> bool:
    """Whether the last top-level box of an MP4 is longer than what is left of the file."""
    end, offset = path.stat().st_size, 0
    with path.open("rb") as file:
        while offset < end:
            file.seek(offset)
            header = file.read(16)
            if len(header) < 8 or not header[4:8].isalnum():
                return False  # something else was appended to the file; FFmpeg passes over it
            size = int.from_bytes(header[:4], "big")
            if size == 1:
                size = int.from_bytes(header[8:16], "big")
            if size < 8:
                return False  # 0: the box goes on to the end of the file
            offset += size
    return offset > end


def _rate(stream: VideoStream) -> Fraction:
    """Average frames per second; where the file gives none, or nonsense, 25."""
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate and 0 < rate <= 1000:
            return rate
    return Fraction(25)


def _duration(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None
