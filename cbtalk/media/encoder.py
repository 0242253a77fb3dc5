"""The H.264 encoders of FFmpeg that write videos, and their settings."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import cast

import av
import av.logging
from av.video.codeccontext import VideoCodecContext

from cbtalk.errors import OutputError
from cbtalk.options.render import Encoder

# Of a large image that mostly stands still, x264's rate control and presets cost far more than coding what moves:
# a constant quantiser needs no look ahead.
_MOSTLY_STILL = {
    "libx264": {"qp": "18", "preset": "ultrafast", "x264-params": "cabac=1:8x8dct=1"},
    "h264_nvenc": {"rc": "constqp", "qp": "18", "preset": "p1", "bf": "0"},
}


def name_of(encoder: Encoder) -> str:
    """FFmpeg's name. auto is x264, for nobody has measured NVENC faster; data-centre GPUs as the H100 have none."""
    return "libx264" if encoder == "auto" else encoder


def settings(name: str, *, crf: int, preset: str, mostly_still: bool) -> dict[str, str]:
    """FFmpeg's options of an encoder.

    NVENC's constant quality stands for x264's crf (both are quantisers of about the same scale) and p4, its middle
    preset, for any of x264's. It gets no B-frames: then frames are decoded in the order in which they are shown, on
    which the length of the last one depends.
    """
    if mostly_still:
        return _MOSTLY_STILL[name]
    if name == "libx264":
        return {"crf": str(crf), "preset": preset}
    return {"rc": "vbr", "cq": str(crf), "preset": "p4", "bf": "0"}


def check_encoder(encoder: Encoder, width: int = 256, height: int = 256) -> None:
    """Raise OutputError, with FFmpeg's reason, where an encoder cannot be opened here for images of this size."""
    name = name_of(encoder)
    if name == "libx264":
        return  # PyAV always has it
    with _log_of_errors() as log:
        reason = _why_not(name, width, height)
    if reason is not None:
        said = "; ".join(text.strip() for _, _, text in log) or reason
        raise OutputError(f"encoder {name}: cannot be opened here ({said}); use libx264")


@contextmanager
def _log_of_errors() -> Iterator[list[tuple[int, str, str]]]:
    """Errors that FFmpeg logs, which PyAV otherwise turns off, as (level, who, text)."""
    level, skip = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as log:
            yield log
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skip)


def _why_not(name: str, width: int, height: int) -> str | None:
    try:
        context = cast(VideoCodecContext, VideoCodecContext.create(name, "w"))
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.time_base = Fraction(1, 25)
        context.options = settings(name, crf=18, preset="medium", mostly_still=False)
        context.open()
    except av.codec.codec.UnknownCodecError:
        return "the FFmpeg of PyAV has no encoder of this name"
    except av.FFmpegError as error:
        return error.strerror
    return None
