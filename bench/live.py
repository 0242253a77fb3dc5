"""The live tab without its page: a clip offered to a `LiveTalker` at its own rate, as a camera would.

    python -m bench.live [--clip CLIP] [--seconds 40] [--precision auto]

Prints images a second, the median and the worst latency (from a frame's arrival to its image), and both for the
first and the second half of the time: with the newest frame winning, the second half is no slower. Without a clip, the
frames are those of a photo that moves (scikit-image's astronaut, 640 x 480).
"""

import argparse
import statistics
import threading
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from numpy.typing import NDArray
from PIL import Image

from bench.machine import header
from cbtalk.allocator import keep_freed_memory
from cbtalk.app.live import LiveFrame, LiveModel, LiveTalker
from cbtalk.media.video_reader import Frame, open_video
from cbtalk.precision import dtype_of
from cbtalk.render.options import RenderOptions
from cbtalk.render.video import model_cache

RATE = 25
POLL = 0.001  # seconds between looks for an image
PORTRAIT = Path("astronaut.png")  # for messages: it is in memory


def moving_photo() -> list[NDArray[np.uint8]]:
    """Two seconds of a head that moves, 640 x 480."""
    photo = Image.fromarray(skimage.data.astronaut())
    places = 20 * np.sin(np.linspace(0, 2 * np.pi, 2 * RATE, endpoint=False))
    return [np.array(photo.crop((40 + x, 0, 360 + x, 240)).resize((640, 480))) for x in places.round().astype(int)]


def frames_of(clip: Path) -> list[NDArray[np.uint8]]:
    """The frames of a video that can be decoded."""
    with open_video(clip) as reader:
        return [frame.image for frame in reader if isinstance(frame, Frame)]


def live_frames(talker: LiveTalker, frames: list[NDArray[np.uint8]], seconds: float) -> list[LiveFrame]:
    """The images of so many seconds in which a frame is offered every 1 / RATE seconds."""
    made: list[LiveFrame] = []
    ended = threading.Event()

    def camera() -> None:
        begun = time.monotonic()
        for number, frame in enumerate(cycle(frames)):
            left = begun + number / RATE - time.monotonic()
            if ended.wait(max(0.0, left)):
                return
            talker.offer(frame)

    thread = threading.Thread(target=camera)
    thread.start()
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            image = talker.newest()
            if image is not None:
                made.append(image)
            time.sleep(POLL)
    finally:
        ended.set()
        thread.join()
    return made


def lines(made: list[LiveFrame]) -> Iterator[str]:
    """The figures, without the first image, before which the face is looked for."""
    first, rest = made[0], made[1:]
    middle = (rest[0].ready + rest[-1].ready) / 2
    parts = {
        "all": rest,
        "first half": [image for image in rest if image.ready <= middle],
        "second half": [image for image in rest if image.ready > middle],
    }
    yield f"first image: {first.latency * 1000:.0f} ms, the face looked for"
    for name, part in parts.items():
        rate = (len(part) - 1) / (part[-1].ready - part[0].ready)
        latencies = [image.latency * 1000 for image in part]
        yield f"{name}: {rate:.1f} fps, latency {statistics.median(latencies):.0f} ms, worst {max(latencies):.0f} ms"


def main() -> None:
    """Prints the figures."""
    parser: Any = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--weights", default="mini")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    dtype = dtype_of(arguments.precision, "cpu")
    model = LiveModel(model_cache(arguments.weights, "cpu", dtype), threading.Lock())
    talker = LiveTalker(model, PORTRAIT, skimage.data.astronaut(), RenderOptions())
    frames = moving_photo() if arguments.clip is None else frames_of(arguments.clip)
    made = live_frames(talker, frames, arguments.seconds)
    height, width = frames[0].shape[:2]
    print(*(f"{name}: {value}" for name, value in header().items()), sep=", ")
    print(f"{arguments.weights}, {dtype}")
    print(f"{RATE} frames a second of {width} x {height} for {arguments.seconds:g} s")
    print(*lines(made), sep="\n")


if __name__ == "__main__":
    main()
