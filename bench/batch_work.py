"""Batches of real portraits and clips to be measured: their files, commands, and comparison of videos."""

import csv
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from cbtalk.media.video_reader import Frame, open_video
from cbtalk.media.video_writer import VideoWriter


@dataclass(frozen=True)
class Line:
    """A line of a manifest."""

    source: Path
    driving: Path
    output: str


def write_jobs(manifest: Path, sources: Sequence[Path], clips: Sequence[Path], count: int) -> tuple[Path, list[Line]]:
    """Write a manifest of the first so many pairs of all sources with all clips; it and its lines."""
    pairs = [(source, clip) for source in sources for clip in clips]
    lines = [Line(source, clip, f"{number:04}.mp4") for number, (source, clip) in enumerate(pairs[:count])]
    with manifest.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["source", "driving", "output"])
        writer.writerows([line.source.resolve(), line.driving.resolve(), line.output] for line in lines)
    return manifest, lines


def portraits(folder: Path, clips: Sequence[Path], scratch: Path, count: int) -> list[Path]:
    """An image of each person of a folder of `name_size.suffix`, and first frames of clips where those are too few."""
    people = {path.stem.rpartition("_")[0] or path.stem: path for path in sorted(folder.iterdir(), reverse=True)}
    found = sorted(people.values())[:count]
    for clip in clips[: count - len(found)]:
        found.append(scratch / f"{clip.stem}.png")
        Image.fromarray(next(_frames(clip)).image).save(found[-1])
    return found


def short_clips(folder: Path, scratch: Path, count: int, frames: tuple[int, int], every: int, seed: int) -> list[Path]:
    """The beginnings of clips of a folder, of a random number of frames, every second (third ...) frame of theirs."""
    draw = random.Random(seed)
    paths = sorted(folder.rglob("*.mp4"))
    if len(paths) < count:
        sys.exit(f"{folder}: has {len(paths)} clips of the {count} that are needed")
    return [_shortened(path, scratch, draw.randint(*frames), every) for path in draw.sample(paths, count)]


def _shortened(path: Path, scratch: Path, frames: int, every: int) -> Path:
    short = scratch / path.name
    with open_video(path) as reader:
        info, kept = (
            reader.info,
            list(islice(islice((f for f in reader if isinstance(f, Frame)), 0, None, every), frames)),
        )
    height, width = kept[0].image.shape[:2]
    rate = info.average_rate / every
    with VideoWriter(short, width=width, height=height, rate=rate, time_base=1 / rate) as writer:
        for number, frame in enumerate(kept):
            writer.write(frame.image, number)
    return short


def command(manifest: Path, folder: Path, *more: str) -> list[str]:
    """The command line of a batch."""
    return [sys.executable, "-m", "cbtalk", "batch", str(manifest), "-o", str(folder), "--quiet", *more]


def single(line: Line, output: Path) -> list[str]:
    """The command line of a render of its own."""
    files = [f"--source={line.source}", f"--driving={line.driving}", f"--output={output}"]
    return [sys.executable, "-m", "cbtalk", "render", *files, "--quiet"]


def same(one: Path, other: Path) -> bool:
    """Whether two videos have the same frames at the same times."""
    a, b = list(_frames(one)), list(_frames(other))
    return len(a) == len(b) and all(
        x.pts * x.time_base == y.pts * y.time_base and np.array_equal(x.image, y.image)
        for x, y in zip(a, b, strict=True)
    )


def _frames(path: Path) -> Iterator[Frame]:
    with open_video(path) as reader:
        yield from (frame for frame in reader if isinstance(frame, Frame))
