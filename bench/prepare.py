"""Raw videos made into training clips: `python -m bench.prepare --clips FOLDER [--training FOLDER]`.

Pads clips into videos of 1280 x 720, two people side by side and a cut to two others, and prepares training clips of
them: how the squares agree with the known ones, whether each clip shows one person of one scene, and how fast it is.
Then again, killed with -9 and started anew: what was finished must stay as it is.

With --training, prints sharpness and motion of good clips and of spoiled copies, by which the defaults were set.
"""

import argparse
import csv
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import skimage.data
import torch
from PIL import Image, ImageFilter

from cbtalk.faces import Square, find_faces, fixed_square
from cbtalk.media.images import Image8
from cbtalk.media.video_reader import Frame, open_video
from cbtalk.media.video_writer import VideoWriter
from cbtalk.prepare.options import PrepareOptions
from cbtalk.prepare.quality import Quality

RATE = 25
WIDTH, HEIGHT = 1280, 720
PLACES = ((60, 300, 320), (720, 120, 400))  # left, top and side of the two people's squares
EVERY = 5  # frames from look to look


class Known(NamedTuple):
    """A person in a scene of a raw video: `framed` as the clip was, `found` as its own frames tell; seconds."""

    video: str
    start: float
    end: float
    framed: Square
    found: Square


def frames_of(path: Path) -> list[Image8]:
    """The frames of a clip."""
    with open_video(path) as reader:
        return [frame.image for frame in reader if isinstance(frame, Frame)]


def own_square(frames: list[Image8]) -> Square:
    """The square that fits the face of a clip, by a look at it alone."""
    looks = [find_faces(torch.from_numpy(frame).permute(2, 0, 1)) for frame in frames[::EVERY]]
    return fixed_square([faces[0] for faces in looks if faces])


def scene(clips: list[list[Image8]], background: Image8) -> Iterator[Image8]:
    """Two clips side by side before a photo, as long as the shorter one."""
    for images in zip(*clips, strict=False):
        canvas = Image.fromarray(background)
        for image, (left, top, side) in zip(images, PLACES, strict=True):
            canvas.paste(Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS), (left, top))
        yield np.array(canvas)


def make_raw(clips: Path, folder: Path) -> list[Known]:
    """A raw video for every two clips: they, and after a cut the next two."""
    people = {path.stem: frames_of(path) for path in sorted(clips.glob("*.mp4"))}
    squares = {name: own_square(frames) for name, frames in people.items()}
    photos = [
        np.array(Image.fromarray(photo).resize((WIDTH, HEIGHT)))
        for photo in (skimage.data.coffee(), skimage.data.cat())
    ]
    names = list(people)
    known = []
    for first in range(0, len(names), 2):
        path = folder / f"raw-{first // 2}.mp4"
        with VideoWriter(path, width=WIDTH, height=HEIGHT, rate=Fraction(RATE), time_base=Fraction(1, RATE)) as writer:
            number = 0
            for pair, photo in zip(range(first, first + 4, 2), photos, strict=True):
                two = [names[index % len(names)] for index in (pair, pair + 1)]
                start = number
                for number, image in enumerate(scene([people[name] for name in two], photo), start):
                    writer.write(image, number)
                number += 1
                for name, (left, top, side) in zip(two, PLACES, strict=True):
                    framed = Square(left + side / 2, top + side / 2, side)
                    x, y, own = (value * side / people[name][0].shape[0] for value in squares[name][:3])
                    found = Square(left + x, top + y, own)
                    known.append(Known(path.name, start / RATE, number / RATE, framed, found))
    return known


def overlap(a: Square, b: Square) -> float:
    """Intersection over union."""
    inner = 1.0
    for p, q in ((a.x, b.x), (a.y, b.y)):
        inner *= max(0.0, min(p + a.side / 2, q + b.side / 2) - max(p - a.side / 2, q - b.side / 2))
    return inner / (a.side**2 + b.side**2 - inner)


def command(raw: Path, output: Path) -> list[str]:
    """The command that is measured."""
    return [sys.executable, "-m", "cbtalk", "prepare", str(raw), str(output), "--workers", "2"]


def judge(output: Path, known: list[Known]) -> None:
    """Prints how the clips in the report agree with the known people."""
    with (output / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    clips = [row for row in rows if row["clip"]]
    print(
        f"clips: {len(clips)} of {len(known)} people in scenes; left out: {[r['reason'] for r in rows if r['reason']]}"
    )
    framed, found, late = [], [], []
    for person in known:
        here = [
            row
            for row in clips
            if row["video"] == person.video and float(row["start"]) < person.end and float(row["end"]) > person.start
        ]
        square = {row["clip"]: Square(float(row["x"]), float(row["y"]), float(row["side"])) for row in here}
        best = max(here, key=lambda row: overlap(square[row["clip"]], person.framed), default=None)
        if best is None:
            print(f"  nothing of {person}")
            continue
        framed.append(overlap(square[best["clip"]], person.framed))
        found.append(overlap(square[best["clip"]], person.found))
        late.append(max(abs(float(best["start"]) - person.start), abs(float(best["end"]) - person.end)))
    for name, values in (("the framing of the clip", framed), ("the face in the clip", found)):
        print(f"overlap with {name}: median {statistics.median(values):.3f}, least {min(values):.3f}")
    print(f"starts and ends: off by at most {max(late):.3f} s")
    faces = [
        len(find_faces(torch.from_numpy(image).permute(2, 0, 1)))
        for row in clips
        for image in frames_of(output / row["clip"])[::EVERY]
    ]
    print(f"faces in {len(faces)} images of clips: {min(faces)} to {max(faces)}")


def killed_and_resumed(raw: Path, output: Path, clips: int) -> None:
    """Kills a run once it has so many clips, starts it again, and prints whether it repeated anything."""
    with subprocess.Popen(command(raw, output), stdout=subprocess.DEVNULL, start_new_session=True) as process:
        while process.poll() is None and len(list(output.glob("*.mp4"))) < clips:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)  # its workers too, so that they cannot clear up
    before = {path: path.stat() for path in output.glob("*.mp4")}
    parts = len(list(output.glob(".*-part")))
    subprocess.run(command(raw, output), check=True, stdout=subprocess.DEVNULL)
    after = {path: path.stat() for path in output.glob("*.mp4")}
    same = sum(
        (after[path].st_ino, after[path].st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)
        for path, stat in before.items()
    )
    left = len(list(output.glob(".*-part")))
    print(
        f"killed with {len(before)} clips and {parts} unfinished files: {same} untouched, {len(after)} in the end, "
        f"{left} unfinished files left"
    )


def spoiled() -> dict[str, Callable[[Image.Image], Image.Image]]:
    """Ways to spoil an image of 256 x 256."""

    def blurred(radius: float) -> Callable[[Image.Image], Image.Image]:
        return lambda image: image.filter(ImageFilter.GaussianBlur(radius))

    def enlarged(side: int) -> Callable[[Image.Image], Image.Image]:
        return lambda image: image.resize((side, side), Image.Resampling.BICUBIC).resize(image.size)

    return {
        "as it is": lambda image: image,
        **{f"blurred by {radius} px": blurred(radius) for radius in (1, 2.5, 4, 8, 16)},
        **{f"enlarged from {side} px": enlarged(side) for side in (128, 96, 64)},
    }


def figures(training: Path) -> None:
    """Prints sharpness and motion of clips and of spoiled copies."""
    sharpness: dict[str, list[float]] = {name: [] for name in spoiled()}
    motion: dict[str, list[float]] = {"as it is": [], "its first image with noise": []}
    random = np.random.default_rng(0)
    for path in sorted(training.glob("*.mp4")):
        frames = frames_of(path)[::EVERY]
        for name, spoil in spoiled().items():
            quality = Quality()
            for frame in frames if name == "as it is" else frames[::EVERY]:
                quality.add(np.asarray(spoil(Image.fromarray(frame))))
            sharpness[name].append(quality.sharpness)
            if name == "as it is":
                motion[name].append(quality.motion)
        quality = Quality()
        for _ in range(9):
            quality.add((frames[0] + random.normal(0, 6, frames[0].shape)).clip(0, 255).astype(np.uint8))
        motion["its first image with noise"].append(quality.motion)
    defaults = PrepareOptions()
    for title, table, least in (
        ("sharpness", sharpness, defaults.min_sharpness),
        ("motion", motion, defaults.min_motion),
    ):
        for name, values in table.items():
            low, *_, high = (np.percentile(values, share) for share in (0, 1, 5, 50, 95, 100))
            one, five, half = np.percentile(values, [1, 5, 50])
            print(
                f"{title} {name}: least {low:.3f}, 1% {one:.3f}, 5% {five:.3f}, median {half:.3f}, most {high:.3f}; "
                f"left out, below {least}: {np.mean(np.array(values) < least):.3f}"
            )


def main() -> None:
    """Prints what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="folder of clips to make raw videos of")
    parser.add_argument("--training", type=Path, help="folder of good clips")
    arguments = parser.parse_args()
    if arguments.training:
        figures(arguments.training)
    if arguments.clips:
        with tempfile.TemporaryDirectory() as folder:
            raw, output = Path(folder) / "raw", Path(folder) / "clips"
            raw.mkdir()
            known = make_raw(arguments.clips, raw)
            begin = time.perf_counter()
            subprocess.run(command(raw, output), check=True)
            seconds = time.perf_counter() - begin
            length = sum(person.end - person.start for person in known) / 2  # two people in each scene
            print(f"{length:.0f} s of video in {seconds:.1f} s: {length / seconds:.2f} seconds a second")
            judge(output, known)
            killed_and_resumed(raw, Path(folder) / "killed", clips=3)


if __name__ == "__main__":
    main()
