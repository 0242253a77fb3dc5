"""Decoding and encoding of video, which run beside the model in threads of their own; and a clip to do it with."""

import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

from cbtalk.media.video_writer import VideoWriter
from cbtalk.render.driving import crop_view, read_driving

FRAMES = 50


def write_clip(path: Path, *, side: int, frames: int, rate: int) -> None:
    """A moving pattern of side x side pixels."""
    y, x = np.mgrid[:side, :side]
    with VideoWriter(path, width=side, height=side, rate=Fraction(rate), time_base=Fraction(1, rate)) as writer:
        for number in range(frames):
            grey = (127 + 100 * np.sin((x + 3 * number) / 20) * np.cos(y / 15)).astype(np.uint8)
            writer.write(np.repeat(grey[..., None], 3, axis=2), number)


def decode_and_encode(side: int) -> dict[str, float]:
    """Seconds a frame of each, of a clip of side x side pixels, file opened and closed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_clip(path, side=side, frames=FRAMES, rate=25)
        begin = time.perf_counter()
        images = [frame.image for frame in read_driving(path, crop_view("centre", side))]
        middle = time.perf_counter()
        with VideoWriter(path, width=side, height=side, rate=Fraction(25), time_base=Fraction(1, 25)) as writer:
            for number, image in enumerate(images):
                writer.write(image, number)
        end = time.perf_counter()
    return {"decode": (middle - begin) / FRAMES, "encode": (end - middle) / FRAMES}
