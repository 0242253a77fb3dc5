"""H.264 video files with exact time stamps, the sound of another file, and all or nothing on the disk."""

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import av
import numpy as np
from av.codec.context import Flags
from av.video.frame import PictureType
from av.video.stream import VideoStream
from numpy.typing import NDArray

from cbtalk import ranges
from cbtalk.atomic import atomic_path
from cbtalk.errors import OutputError
from cbtalk.media.audio_track import AudioTrack
from cbtalk.media.encoder import check_encoder, name_of, settings
from cbtalk.media.threads import ENCODING
from cbtalk.media.yuv import BT709, Surroundings, ToYuv, ToYuvInPlace
from cbtalk.options.render import Encoder

SYNTHETIC_NOTICE = "Synthetic video made with cbtalk: the motion shown was not performed by the person shown."
FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}  # suffix -> FFmpeg's name of the container

_LIMITED_RANGE = 1


class VideoWriter:
    """Writes uint8 RGB images as H.264 (yuv420p, bt709, limited range); use it as a context manager.

    The file appears under its name when the block ends, complete; when the block fails, nothing is left. Odd sizes are
    made even by repeating the last column or row, for yuv420p has no odd sizes. MP4 and MOV can be played while they
    are being loaded (faststart). Matroska rounds time stamps to milliseconds; MP4 and MOV keep them exactly.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        width: int,
        height: int,
        rate: Fraction,
        time_base: Fraction,
        audio_from: Path | None = None,
        audio_start: Fraction = Fraction(0),
        metadata: Mapping[str, str] | None = None,
        surroundings: Surroundings | None = None,
        encoder: Encoder = "auto",
        crf: int = 18,
        preset: str = "medium",
    ) -> None:
        """Say what will be written.

        width, height: of the images. rate: average images a second.
        time_base: seconds per tick of the pts. audio_from: file whose sound is carried over, up to the end of the last
        image, on the same clock as the pts; audio_start: seconds on that clock at which the pts are 0. metadata:
        entries of the container, over a comment that says that the video is synthetic. surroundings: a larger image
        that stands still; the video has its size and the images lie in it. encoder: as in `cbtalk.media.encoder`.
        crf: x264's quality, smaller is better. preset: x264's, slower is smaller. With surroundings, a constant
        quantiser and a fast preset take the place of both.

        Raises OutputError for a suffix other than .mp4, .mov and .mkv.
        """
        self._path = Path(path)
        if self._path.suffix.lower() not in FORMATS:
            raise OutputError(f"{path}: name the video {', '.join(sorted(FORMATS))}; other kinds are not written")
        self._size = self._video_size = (width, height)
        self._rate, self._time_base = rate, time_base
        self._audio_from, self._audio_start = audio_from, audio_start
        self._metadata = {"comment": SYNTHETIC_NOTICE, **(metadata or {})}
        self._kind: Encoder = encoder
        self._pending: av.VideoFrame | None = None  # the last image so far
        self._to_yuv: ToYuv | ToYuvInPlace = ToYuv()
        if surroundings is not None:
            self._video_size = (surroundings.image.shape[1], surroundings.image.shape[0])
            self._to_yuv = ToYuvInPlace(surroundings, width, height)
        still = surroundings is not None
        self._encoder_options = settings(name_of(encoder), crf=crf, preset=preset, mostly_still=still)

    @property
    def audio(self) -> str | None:
        """The way the sound is carried over: "copied", "re-encoded to AAC", or None without sound."""
        return self._track.how if self._track else None

    @property
    def _even_size(self) -> tuple[int, int]:
        width, height = self._video_size
        return width + width % 2, height + height % 2

    def __enter__(self) -> Self:
        """Create the temporary file. Raises OutputError where it cannot be, InputError for a bad `audio_from`."""
        check_encoder(self._kind, *self._even_size)
        self._file = self._opened()
        self._file.__enter__()
        return self

    @ranges.ranged("encode")
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the file, or remove it after an error. Raises SystemFailure where the disk is full."""
        self._file.__exit__(kind, error, trace)

    def write(self, image: NDArray[np.uint8], pts: int, duration: int | None = None) -> None:
        """Append an image (height, width, 3) uint8 RGB, shown from pts * time_base seconds on.

        duration: ticks for which it is shown if it is the last; one at the average rate where None.

        Raises ValueError for another shape or a pts that does not increase, SystemFailure where the disk is full.
        """
        width, height = self._size
        if image.shape != (height, width, 3) or image.dtype != np.uint8:
            raise ValueError(f"image of {image.shape} {image.dtype}, expected ({height}, {width}, 3) uint8")
        before = self._pending
        if pts < 0 or (before is not None and pts <= (before.pts or 0)):
            raise ValueError(f"pts {pts} after {before and before.pts}: must be 0 or more, and increase")
        self._pending = self._to_yuv(image)
        self._pending.pts, self._pending.time_base = pts, self._time_base
        self._pending.duration = duration or max(1, round(1 / (self._rate * self._time_base)))
        with self._one_line_errors():
            if before is not None:
                before.duration = pts - (before.pts or 0)
                self._container.mux(self._encoder.encode(before))
            self._feed_audio(pts * self._time_base)

    @contextmanager
    def _opened(self) -> Iterator[None]:
        with atomic_path(self._path) as temporary, ExitStack() as stack:
            try:
                self._start(temporary, stack, copy_sound=True)
            except OSError:
                raise  # of the disk
            except av.FFmpegError:
                stack.close()  # the container refuses this sound after all, as MP4 does MP3 at low rates
                try:
                    self._start(temporary, stack, copy_sound=False)
                except OSError:
                    raise
                except av.FFmpegError as error:
                    size = "{} x {}".format(*self._video_size)
                    raise OutputError(f"{self._path}: {size} pixels cannot be encoded: {error.strerror}") from error
            yield
            self._finish()

    def _start(self, temporary: Path, stack: ExitStack, *, copy_sound: bool) -> None:
        """Open container, encoder and sound, write the header, and let `stack` close them."""
        suffix = self._path.suffix.lower()
        # By its name: through a file object, PyAV would swallow a KeyboardInterrupt that arrives while FFmpeg writes.
        self._container = av.open(
            str(temporary), "w", format=FORMATS[suffix], container_options=self._container_options()
        )
        stack.callback(self._close)
        self._container.metadata.update(self._metadata)
        self._add_encoder()
        self._track = None
        if self._audio_from is not None:
            track = AudioTrack(self._audio_from, self._container, suffix, start=self._audio_start, copy=copy_sound)
            self._track = stack.enter_context(track)
        self._container.start_encoding()

    def _close(self) -> None:
        """Free the container on the way out, where an error of its own would hide the one that led here."""
        with suppress(av.FFmpegError):
            self._container.close()

    def _container_options(self) -> dict[str, str]:
        # MP4 tells the time of the first image on a clock of milliseconds unless it is given a finer one.
        ticks = math.lcm(self._time_base.denominator, 1000)
        finer = {"movie_timescale": str(ticks)} if ticks < 2**31 else {}
        return {"movflags": "+faststart", **finer}

    def _add_encoder(self) -> None:
        width, height = self._even_size
        stream = self._container.add_stream(
            name_of(self._kind),
            rate=self._rate,
            options=self._encoder_options,
            width=width,
            height=height,
            pix_fmt="yuv420p",
            time_base=self._time_base,
        )
        self._encoder = cast(VideoStream, stream)
        context = self._encoder.codec_context
        context.thread_count = ENCODING
        context.flags |= Flags.frame_duration  # packets last as long as their frames
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = _LIMITED_RANGE

    def _feed_audio(self, until: Fraction) -> None:
        if self._track:
            self._track.feed(until)

    def _finish(self) -> None:
        """Write what the encoder still holds, the sound of the last image, and the tables."""
        last = self._pending
        if last is None:
            raise OutputError(f"{self._path}: is not written, for there was no image to write")
        # MP4 tells how long the image stays that is decoded last. A key frame is decoded last where it is shown last.
        last.pict_type = PictureType.I
        with self._one_line_errors():
            self._container.mux(self._encoder.encode(last))
            self._container.mux(self._encoder.encode(None))
            self._feed_audio(((last.pts or 0) + last.duration) * self._time_base)
            if self._track:
                self._track.finish()
            self._container.close()

    @contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        """Name the likely culprit where FFmpeg gives up: the images are ours, the sound is not."""
        try:
            yield
        except OSError:
            raise  # of the disk
        except av.FFmpegError as error:
            culprit = f"the sound of {self._audio_from} is damaged" if self.audio else "FFmpeg gave up"
            raise OutputError(f"{self._path}: cannot be completed: {culprit} ({error.strerror})") from error
