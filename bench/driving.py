"""The framing of raw driving videos: `python -m bench.driving --clips FOLDER --models FOLDER [--frames N] [--every N]`.

Each prepared clip is pasted into a photo of other content, 1280 x 720, off centre, at rest and on a walk, and rendered
as `cbtalk render` renders it without a crop. Its first frame is the source, so the landmark error (that of `cbtalk
evaluate`, in pixels of an image of 256 x 256) tells what the squares that were found cost against the prepared clip.
Then a face that does not move, under the noise of a sensor: how much its keypoints move in a square at rest and in one
that follows.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from bench.faces import largest
from cbtalk.evaluate.extractors import Extractors, find_extractors
from cbtalk.evaluate.faces import FaceStream, Means, compare
from cbtalk.faces import Square, cut, frame
from cbtalk.media.clips import Clip, clip_frames, find_clips
from cbtalk.media.images import Image8
from cbtalk.media.video_reader import BadFrame, open_video
from cbtalk.media.video_writer import VideoWriter
from cbtalk.model.checkpoint import load
from cbtalk.render import DrivingOptions, RenderOptions, render_video, write_motion
from cbtalk.render.motion_file import load_motion

Place = Callable[[int], tuple[float, float, float]]  # frame's number -> centre x, y and side of the clip in the image

SIZE = 256
WIDTH, HEIGHT, RATE = 1280, 720, 25
WALK = 3.0  # px a frame
NOISE = 4.0  # levels, standard deviation


def photo(number: int) -> Image8:
    """A photo of something else."""
    photos = (skimage.data.coffee(), skimage.data.chelsea(), skimage.data.immunohistochemistry(), skimage.data.rocket())
    return np.array(Image.fromarray(photos[number % len(photos)]).resize((WIDTH, HEIGHT)))


def at_rest(number: int) -> Place:
    """Somewhere off centre, of another size for each clip."""
    random = np.random.default_rng(number)
    side = random.uniform(280, 480)
    x = random.uniform(side / 2, WIDTH / 3) if number % 2 else random.uniform(2 * WIDTH / 3, WIDTH - side / 2)
    y = random.uniform(side / 2, HEIGHT - side / 2)
    return lambda frame: (x, y, side)


def on_a_walk(number: int) -> Place:
    """From the left to the right, up and down with the steps, and nearer."""
    _, y, side = at_rest(number)(0)
    return lambda frame: (side / 2 + WALK * frame, y + 4 * np.sin(frame / 3), side * (1 + 0.0005 * frame))


def pasted(background: Image8, inset: Image8, place: tuple[float, float, float]) -> Image8:
    """A square image at a place, to fractions of a pixel, in an image of something else."""
    x, y, side = place
    scale = inset.shape[0] / side
    inverse = (scale, 0.0, (side / 2 - x) * scale, 0.0, scale, (side / 2 - y) * scale)
    moved = (
        Image.fromarray(inset)
        .convert("RGBA")
        .transform((WIDTH, HEIGHT), Image.Transform.AFFINE, inverse, Image.Resampling.BICUBIC)
    )
    whole = Image.fromarray(background)
    whole.paste(moved, (0, 0), moved)
    return np.array(whole)


def write(path: Path, frames: list[Image8]) -> Path:
    """A video."""
    height, width = frames[0].shape[:2]
    with VideoWriter(path, width=width, height=height, rate=Fraction(RATE), time_base=Fraction(1, RATE)) as writer:
        for number, image in enumerate(frames):
            writer.write(image, number)
    return path


def frames_of(path: Path) -> list[Image8]:
    """The frames of a video."""
    with open_video(path) as reader:
        return [frame.image for frame in reader if not isinstance(frame, BadFrame)]


def found_square(image: Image8) -> Square:
    """That which a source has without a crop."""
    face = largest(image)
    assert face is not None
    return frame(image, face)


class Bench:
    """Renders and extracts in a folder, and measures what comes out."""

    def __init__(self, folder: Path, models: Path, every: int) -> None:
        self.folder, self.every = folder, every
        self.extractors = Extractors(landmarks=find_extractors(models).landmarks)
        self.talker = load("mini")

    def landmarks(self, clip: Path, options: RenderOptions) -> dict[str, float]:
        """The landmark errors of a clip that is driven by itself, by extractor.

        Absolute motion puts the face where it is in the driving square, relative motion where it is in the source's.
        """
        frames = frames_of(clip)
        source, output = self.folder / "source.png", self.folder / "out.mp4"
        Image.fromarray(frames[0]).save(source)
        render_video(source, clip, output, options)
        panels = frames_of(output)
        real = [panel[:, SIZE : 2 * SIZE] for panel in panels]
        if options.motion == "relative" and options.crop is None:
            square = found_square(frames[0])
            real = [cut(image, square, SIZE) for image in frames]
        return self._errors([panel[:, 2 * SIZE :] for panel in panels], real)

    def _errors(self, results: list[Image8], real: list[Image8]) -> dict[str, float]:
        means, streams = Means(), (FaceStream(self.extractors), FaceStream(self.extractors))
        for number in range(self.every, len(results), self.every):
            found = [
                stream.read(number, images[number]) for stream, images in zip(streams, (results, real), strict=True)
            ]
            means.add(compare(found[0], found[1], self.extractors))
        values = means.values()
        return {extractor.name: values[f"landmarks_{extractor.name}"] for extractor in self.extractors.landmarks}

    def unrest(self, clip: Path, options: DrivingOptions) -> tuple[float, float]:
        """The distance of a clip's keypoints from their mean, and their jitter, in px of an image of 256 x 256."""
        output = self.folder / "motion.safetensors"
        write_motion(clip, output, options)
        fingerprint, count = self.talker.motion_fingerprint(), self.talker.config.keypoints
        value = load_motion(output, fingerprint=fingerprint, num_keypoints=count).keypoints.value * (SIZE / 2)
        spread = (value - value.mean(0)).norm(dim=2).mean()
        return float(spread), float(value.diff(n=2, dim=0).norm(dim=2).mean())


CENTRE = RenderOptions(crop="centre", compare=True, driving=DrivingOptions(crop="centre"))
FOUND = RenderOptions(compare=True)
FOLLOWED = RenderOptions(compare=True, driving=DrivingOptions(follow=True))


def _three(cells: list[str]) -> list[str]:
    return cells + [""] * (3 - len(cells))


def framing(bench: Bench, clips: list[Clip], frames: int) -> None:
    """Landmark errors of each clip, prepared and raw."""
    names = [extractor.name for extractor in bench.extractors.landmarks]
    print("| clip | motion | " + " | ".join(f"{name}: prepared | found | on a walk, --follow" for name in names) + " |")
    print("| --- | --- |" + " --- |" * 3 * len(names))
    for number, clip in enumerate(clips):
        prepared = list(islice(clip_frames(clip, SIZE), frames))
        paths = [write(bench.folder / "prepared.mp4", prepared)]
        for name, place in (("raw", at_rest(number)), ("walk", on_a_walk(number))):
            images = [pasted(photo(number), image, place(index)) for index, image in enumerate(prepared)]
            paths.append(write(bench.folder / f"{name}.mp4", images))
        for motion in ("absolute", "relative"):
            found = [
                bench.landmarks(path, replace(options, motion=motion))
                for path, options in zip(paths, (CENTRE, FOUND, FOLLOWED), strict=True)
            ]
            if motion == "relative":  # to the first frame's place, where the walk has nothing to be compared with
                found.pop()
            cells = [cell for name in names for cell in _three([f"{row[name]:.2f}" for row in found])]
            print(f"| {clip.name} | {motion} | " + " | ".join(cells) + " |", flush=True)


def rest(bench: Bench, clips: list[Clip], frames: int) -> None:
    """The jitter of the keypoints of a face that does not move."""
    print(
        "| still face of | resting square: spread | jitter | --follow: spread | jitter | on a walk: spread | jitter |"
    )
    print("| --- |" + " --- |" * 6)
    for number, clip in enumerate(clips):
        random = np.random.default_rng(number)
        face = next(clip_frames(clip, SIZE))

        def noisy(image: Image8, random: np.random.Generator = random) -> Image8:
            return (image + random.normal(0, NOISE, image.shape)).round().clip(0, 255).astype(np.uint8)

        still, walk = (
            write(bench.folder / f"{name}.mp4", [noisy(pasted(photo(number), face, place(i))) for i in range(frames)])
            for name, place in (("still", at_rest(number)), ("walk", on_a_walk(number)))
        )
        follow = DrivingOptions(follow=True)
        found = [bench.unrest(still, DrivingOptions()), bench.unrest(still, follow), bench.unrest(walk, follow)]
        print(f"| {clip.name} | " + " | ".join(f"{value:.2f}" for pair in found for value in pair) + " |", flush=True)


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True, help="folder of prepared clips")
    parser.add_argument("--models", type=Path, required=True, help="folder of the networks for landmarks")
    parser.add_argument("--frames", type=int, default=60, help="of each clip")
    parser.add_argument("--every", type=int, default=3, help="one of so many frames is measured")
    parser.add_argument("--still", action="store_true", help="the second table alone")
    arguments = parser.parse_args()
    clips = find_clips(arguments.clips)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), arguments.models, arguments.every)
        rest(bench, clips, arguments.frames)
        if not arguments.still:
            framing(bench, clips, arguments.frames)


if __name__ == "__main__":
    main()
