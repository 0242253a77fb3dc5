"""Small video files made on the spot, each with one property that readers and writers get wrong."""

import math
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

from cbtalk.media.images import Image8

AUDIO_RATE = 48000


def flat(colour: tuple[int, int, int], width: int = 64, height: int = 48) -> Image8:
    return np.full((height, width, 3), colour, np.uint8)


def numbered(index: int, width: int = 64, height: int = 48) -> Image8:
    """An image whose brightness tells its number (below 60), with something to encode in it."""
    image = flat((4 * index, 4 * index, 4 * index), width, height)
    image[8:24, 8 + index % 30 : 24 + index % 30] += 12
    return image


def number_of(image: Image8) -> int:
    return round(float(np.median(image)) / 4)


def quadrants(width: int = 64, height: int = 48) -> Image8:
    """Red top left, green top right, blue bottom left, white bottom right."""
    image = flat((255, 0, 0), width, height)
    image[: height // 2, width // 2 :] = (0, 255, 0)
    image[height // 2 :, : width // 2] = (0, 0, 255)
    image[height // 2 :, width // 2 :] = 255
    return image


def write_clip(
    path: Path,
    images: Sequence[Image8],
    *,
    pts: Sequence[int] | None = None,
    rate: Fraction | int = 25,
    time_base: Fraction | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    rotation: int | None = None,
    mirrored: bool = False,
    pixel_aspect: Fraction | None = None,
    sound: str | None = None,
    sound_start: Fraction = Fraction(0),
    sound_seconds: float | None = None,
    sound_hole: tuple[float, float] = (0, 0),
    sound_rate: int = AUDIO_RATE,
    muxer: str | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write images (H, W, 3), all of one size, and a 440 Hz tone with the audio codec `sound`.

    muxer: FFmpeg's name of the container, where the suffix does not tell it.
    """
    base = time_base or 1 / Fraction(rate)
    height, width = images[0].shape[:2]
    times = list(pts) if pts is not None else list(range(len(images)))
    with av.open(path, "w", format=muxer, container_options=container_options or {}) as container:
        video: VideoStream = container.add_stream(  # type: ignore[assignment]
            codec,
            rate=Fraction(rate),
            options=options or {},
            width=width,
            height=height,
            pix_fmt=pix_fmt,
            time_base=base,
        )
        if rotation is not None:
            video.set_display_rotation(rotation, hflip=mirrored)
        if pixel_aspect is not None:
            video.codec_context.sample_aspect_ratio = pixel_aspect
        audio = cast(AudioStream, container.add_stream(sound, rate=sound_rate)) if sound else None
        for image, time in zip(images, times, strict=True):
            frame = av.VideoFrame.from_ndarray(image).reformat(
                format=pix_fmt, dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.MPEG
            )
            frame.pts, frame.time_base = time, base
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            seconds = (
                sound_seconds
                if sound_seconds is not None
                else float((times[-1] - times[0]) * base + 1 / Fraction(rate))
            )
            for chunk in tone_frames(sound_start, seconds):
                if not sound_hole[0] <= (chunk.time or 0) < sound_hole[1]:
                    container.mux(audio.encode(chunk))
            container.mux(audio.encode(None))
    return path


def tone_frames(start: Fraction, seconds: float) -> list[av.AudioFrame]:
    """A 440 Hz tone, stereo 16 bit, in frames of 1000 samples."""
    frames = []
    for first in range(0, round(seconds * AUDIO_RATE), 1000):
        wave = (8000 * np.sin(2 * math.pi * 440 / AUDIO_RATE * np.arange(first, first + 1000))).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.repeat(wave, 2)[None], format="s16", layout="stereo")
        frame.sample_rate, frame.time_base = AUDIO_RATE, Fraction(1, AUDIO_RATE)
        frame.pts = round(start * AUDIO_RATE) + first
        frames.append(frame)
    return frames


def write_sound_only(path: Path) -> Path:
    with av.open(path, "w") as container:
        audio = container.add_stream("aac", rate=AUDIO_RATE)
        for frame in tone_frames(Fraction(0), 0.5):
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    return path


def write_yuv(path: Path, planes: tuple[int, int, int], *, matrix: int, limited: bool, size: tuple[int, int]) -> Path:
    """One flat image given by its (Y, U, V) bytes, stored without loss and tagged with an H.273 matrix number."""
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=25, width=size[0], height=size[1], pix_fmt="yuv420p")
        context = stream.codec_context
        context.colorspace, context.color_range = matrix, ColorRange.MPEG if limited else ColorRange.JPEG
        frame = av.VideoFrame(*size, "yuv420p")
        for plane, value in zip(frame.planes, planes, strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.colorspace, frame.color_range = context.colorspace, context.color_range
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def overwrite_frames(path: Path, numbers: Iterable[int], data: Callable[[int], bytes]) -> None:
    """Replace the stored data of frames, counted in the order of the file, by `data(size)`."""
    with av.open(path) as container:
        entries = [(entry.pos, entry.size) for entry in container.streams.video[0].index_entries]
    with path.open("r+b") as file:
        for number in numbers:
            position, size = entries[number]
            file.seek(position)
            file.write(data(size))


def is_box_before(path: Path, first: bytes, second: bytes) -> bool:
    """Whether a top-level box of an MP4 comes before another."""
    data, offset, order = path.read_bytes(), 0, []
    while offset < len(data):
        size = int.from_bytes(data[offset : offset + 4], "big")
        order.append(data[offset + 4 : offset + 8])
        offset += size
    return order.index(first) < order.index(second)
