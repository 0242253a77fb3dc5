"""Video files as a stream of upright RGB frames with exact time stamps, in constant memory."""

import contextlib
import os
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
from av.container import InputContainer
from av.video.frame import PictureType
from av.video.stream import VideoStream
from PIL import Image

from cbtalk.errors import InputError
from cbtalk.media.alpha import decoder_of
from cbtalk.media.container import container_kind, main_video, open_container, packets, reason_of
from cbtalk.media.cut_off import is_cut_off
from cbtalk.media.display_order import DisplayOrder, Lost, Shown
from cbtalk.media.files import check_readable, check_size
from cbtalk.media.frames import BadFrame, Frame, VideoInfo
from cbtalk.media.span import WHOLE, Span, cut, first_needed
from cbtalk.media.threads import decoding_threads
from cbtalk.media.timeline import Timeline, average_rate
from cbtalk.media.upright import UprightRgb

__all__ = ["BadFrame", "Frame", "VideoInfo", "VideoReader", "open_video"]

_MOST_PIXELS = 2**26  # 8192 x 8192: more is a damaged or hostile header


def open_video(path: str | os.PathLike[str], span: Span = WHOLE, *, skip: int = 0) -> "VideoReader":
    """Open a video file of any kind of `kinds`, or a part of it; use it as a context manager and iterate over it once.

    A part reads like a file of its own, from 0 on; it is decoded from a key frame before it (`span.first_needed`).
    skip: packets of the whole video to leave out, up to a key frame; the times stay those of the whole.

    Raises InputError for a file that is missing, a folder, empty, damaged, a still image, or without any image that
    can be decoded. Of a file that is cut off what is there is read, and `info.warnings` says so.
    """
    path = Path(path)
    check_readable(path, "video")
    if _is_still_image(path):
        raise InputError(f"{path}: is a still image; a video or a motion file is needed")
    container = open_container(path)
    try:
        return VideoReader(path, container, _video_stream(path, container), span, skip)
    except BaseException:
        container.close()
        raise


class VideoReader:
    """The frames of one video, decoded with several threads, one after another as they are asked for.

    The pts are those of the file on a clock that starts at 0 and never jumps (`timeline`). They always increase: a
    missing one is set one frame after the one before, a repeated one one tick after it.

    uniform: so far every frame could be decoded, at its own time in the file, and had the size of the first, and what
    is called a key frame was one: read from a later key frame on, it would be the same.
    """

    info: VideoInfo

    def __init__(self, path: Path, container: InputContainer, stream: VideoStream, span: Span, skip: int) -> None:
        """Decode up to the first good frame, which settles size and orientation. `open_video` is the way in."""
        self._path, self._container, self._stream = path, container, stream
        self._span, self._skipped = span, skip or first_needed(path, span.start)
        self.uniform = True
        self._key_times: set[int] = set()
        self._decoder = decoder_of(stream)
        self._decoder.thread_type = "AUTO"
        self._decoder.thread_count = decoding_threads()
        self._time_base = stream.time_base or Fraction(1, 1000)
        rate = average_rate(stream)
        self._step = max(1, round(1 / (rate * self._time_base)))  # ticks from frame to frame
        self._order = DisplayOrder(self._decoder.codec.canonical_name, 1 / (rate * self._time_base))
        self._ahead: list[Shown | Lost] = []
        self._frames = self._order.arrange(self._decode())
        cut_off = is_cut_off(path, container_kind(container))
        self._upright = self._settle()
        self.info = VideoInfo(
            width=self._upright.width,
            height=self._upright.height,
            average_rate=rate,
            time_base=self._time_base,
            frames=span.most_frames(stream.frames or None, rate),
            duration=span.length(_duration(container, stream)),
            has_audio=bool(container.streams.audio),
            warnings=(f"{path}: is cut off: its end is missing; what is there is used",) if cut_off else (),
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
        self._frames.close()
        self._container.close()

    def __iter__(self) -> Iterator[Frame | BadFrame]:
        """Yield every frame in the order of time, the ones that cannot be decoded as BadFrame. Once only.

        Raises InputError where the file ends before the part of it that is asked for.
        """
        frames = self._in_time()
        return frames if self._span == WHOLE else cut(self._path, frames, self._span, self._time_base)

    def _in_time(self) -> Iterator[Frame | BadFrame]:
        last: int | None = None
        early = 0
        for index, item in enumerate(self._items()):
            ticks = None if item.ticks is None else item.ticks + early
            if isinstance(item, Lost):
                self.uniform = False
                yield BadFrame(index, item.reason, None if ticks is None or ticks < 0 else ticks)
                continue
            if ticks is None:
                ticks = 0 if last is None else last + self._step
            if last is None and ticks < 0:
                early, ticks = -ticks, 0  # an output cannot start before 0
            last = ticks if last is None else max(ticks, last + 1)
            self.uniform &= last == item.ticks
            yield self._frame(item.frame, last, index)

    def _frame(self, frame: av.VideoFrame, pts: int, index: int) -> Frame | BadFrame:
        if frame.is_corrupt:
            self.uniform = False
            return BadFrame(index, "is damaged", pts)
        self.uniform &= self._upright.fits(frame)
        if frame.pts in self._key_times:  # H.264 may call so a frame from which on the image is built up bit by bit
            self.uniform &= frame.pict_type == PictureType.I
        try:
            image = self._upright(frame)
        except (av.FFmpegError, ValueError) as error:
            self.uniform = False
            return BadFrame(index, f"cannot be converted to RGB: {reason_of(error)}", pts)
        return Frame(image, pts, self._time_base, index, self._shown_for(frame))

    def _shown_for(self, frame: av.VideoFrame) -> int:
        """Ticks for which a frame is shown; the packet of a field tells its own half only."""
        ticks = frame.duration or self._step
        return max(ticks, self._step) if frame.interlaced_frame else ticks

    def _settle(self) -> UprightRgb:
        """Decode up to the first good frame, keep what was decoded, and return its converter."""
        for item in self._frames:
            self._ahead.append(item)
            if isinstance(item, Shown) and not item.frame.is_corrupt:
                upright = UprightRgb(item.frame, self._stream.sample_aspect_ratio)
                check_size(self._path, upright.width, upright.height)
                return upright
        raise InputError(f"{self._path}: holds no image that can be decoded; get the video again or convert it")

    def _items(self) -> Iterator[Shown | Lost]:
        while self._ahead:
            yield self._ahead.pop(0)
        yield from self._frames

    def _decode(self) -> Generator[av.VideoFrame | str, None, None]:
        """Decoded frames, and the reason for each packet that is none."""
        number = -1
        for packet in Timeline(self._container).placed(packets(self._container)):
            number += not isinstance(packet, str) and packet.stream is self._stream
            if number < self._skipped:
                continue
            if isinstance(packet, str):
                self._order.hole(packet)
            elif packet.stream is self._stream:
                self._order.add(packet)
                if packet.is_keyframe and packet.pts is not None:
                    self._key_times.add(packet.pts)
                try:
                    yield from self._decoder.decode(packet)
                except (av.FFmpegError, ValueError) as error:
                    yield f"cannot be decoded: {reason_of(error)}"
        with contextlib.suppress(av.FFmpegError, ValueError):
            yield from self._decoder.decode(None)


def _is_still_image(path: Path) -> bool:
    """Whether Pillow knows the file as an image of one frame; FFmpeg would play it as a very short video."""
    try:
        with Image.open(path) as image:
            # Pillow takes the first image of an MPEG-1 video for an image.
            return image.format != "MPEG" and not getattr(image, "is_animated", False)
    except Exception:  # not an image, or a damaged one: FFmpeg will say
        return False


def _video_stream(path: Path, container: InputContainer) -> VideoStream:
    """The stream that holds the video, checked for what would make decoding it pointless."""
    stream = main_video(container)
    if stream is None:
        what = "sound but no video" if container.streams.audio else "no video"
        raise InputError(f"{path}: holds {what}; a video or a motion file is needed")
    if stream.codec_context is None:
        raise InputError(f"{path}: its video codec is not known; convert it to H.264")
    if stream.codec_context.width * stream.codec_context.height > _MOST_PIXELS:
        raise InputError(f"{path}: its frames have more than {_MOST_PIXELS // 10**6} million pixels; make them smaller")
    return stream


def _duration(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if not container.duration:
        return None
    start = max(0, container.start_time or 0) if container_kind(container) == "matroska" else 0  # it states the end
    return (container.duration - start) / av.time_base
