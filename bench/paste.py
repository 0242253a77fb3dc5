"""What pasting the animated square back costs, in likeness and in time, and pictures of it to look at.

python -m bench.paste quality --portraits FOLDER --driving CLIP
python -m bench.paste sheet --portraits FOLDER --driving CLIP -o SHEET.png
python -m bench.paste time --portrait FILE --driving CLIP

quality: every portrait lies eight times in a photo of something else, as in `bench.faces`. Three renders by the same
motion are compared in the coordinates of the portrait's own square, S x S pixels: A of the original portrait, B of the
square found in the photo, C the photo with B pasted back into it. Pixels that the portrait or the square found does not
cover are left out of all. Printed is PSNR(B, A) - PSNR(C, A), means over the frames: what pasting back costs.
"""

import math
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image

import cbtalk
from bench.faces import PLACES, known_square, largest, scene
from cbtalk.faces import Square, cut, frame
from cbtalk.media.images import read_image
from cbtalk.media.video_reader import BadFrame, open_video
from cbtalk.model.keypoints import Keypoints
from cbtalk.model.talker import Talker
from cbtalk.render import DrivingOptions, RenderOptions, render_video
from cbtalk.render.engine import Engine
from cbtalk.render.paste import Paste, colour_difference

Image8 = NDArray[np.uint8]
MOMENTS = 8  # of the driving clip, evenly spread


def driving_keypoints(talker: Talker, clip: Path) -> Keypoints:
    """Those of the first frame of a prepared clip and of MOMENTS later ones, (1 + MOMENTS, K)."""
    with open_video(clip) as reader:
        images = [picture.image for picture in reader if not isinstance(picture, BadFrame)]
    rows = np.linspace(0, len(images) - 1, 1 + MOMENTS).round().astype(int)
    size = talker.image_size
    pictures = np.stack([np.asarray(Image.fromarray(images[row]).resize((size, size))) for row in rows])
    return Engine(talker, pictures[0]).detect(pictures)


def animated(talker: Talker, picture: Image8, driving: Keypoints) -> tuple[Engine, Image8]:
    """A source (S, S, 3) by the motion of driving keypoints since their first: (MOMENTS, S, S, 3)."""
    engine = Engine(talker, picture)
    engine.start_from(Keypoints(*(part[:1] for part in driving)))
    return engine, engine.render(Keypoints(*(part[1:] for part in driving))).images


def pasted(image: Image8, square: Square, engine: Engine, picture: Image8, frames: Image8) -> Iterator[Image8]:
    """A photo (H, W, 3) with the frames of its square in it."""
    height, width = image.shape[:2]
    paste = Paste(height, width, square, colour_difference(picture, engine.unmoved()))
    for one in frames:
        result = image.copy()
        paste.box.of(result)[:] = paste(image, one)
        yield result


def mean_psnr(frames: Iterable[Image8], wanted: Image8, pixels: NDArray[np.bool_]) -> float:
    """In dB, of some pixels (S, S) of pictures (T, S, S, 3)."""
    squared = [
        np.square(one[pixels].astype(float) - other[pixels]).mean() for one, other in zip(frames, wanted, strict=True)
    ]
    return float(np.mean(20 * np.log10(255) - 10 * np.log10(squared)))


def covered(view: Square, height: int, width: int, size: int) -> NDArray[np.bool_]:
    """(size, size): which pixels of the view of a square lie in the image of height x width."""
    positions = (np.arange(size) + 0.5) / size
    (x0, y0), (x1, y1), (x2, y2) = (view.point(u, v) for u, v in ((0, 0), (1, 0), (0, 1)))
    x = x0 + (x1 - x0) * positions + (x2 - x0) * positions[:, None]
    y = y0 + (y1 - y0) * positions + (y2 - y0) * positions[:, None]
    return (x > 0) & (x < width) & (y > 0) & (y < height)


def within(square: Square, other: Square, size: int) -> Square:
    """A square of an image in the coordinates of the pixels of another, of size x size."""
    scale = size / other.side
    cosine, sine = math.cos(math.radians(other.angle)), math.sin(math.radians(other.angle))
    across, down = square.x - other.x, square.y - other.y
    x, y = across * cosine + down * sine, down * cosine - across * sine
    return Square(x * scale + size / 2, y * scale + size / 2, square.side * scale, square.angle - other.angle)


def quality(portraits: Path, driving: Path, weights: str = "mini") -> None:
    """Print what pasting back costs in PSNR against the render of the original portrait."""
    talker = cbtalk.load(weights)
    size = talker.image_size
    motion = driving_keypoints(talker, driving)
    random = np.random.default_rng(0)
    costs, plain = [], []
    for path in sorted(portraits.glob("*.jpg")):
        portrait = read_image(path)
        known = known_square(portrait)
        original = animated(talker, cut(portrait, known, size), motion)[1]
        for number in range(PLACES):
            image, place = scene(portrait, known, number, random)
            face = largest(image)
            assert face is not None
            found = frame(image, face)
            picture = cut(image, found, size)
            engine, frames = animated(talker, picture, motion)
            view = within(place, found, size)
            pixels = covered(known, len(portrait), len(portrait), size) & covered(view, size, size, size)
            without = mean_psnr((cut(one, view, size) for one in frames), original, pixels)
            whole = pasted(image, found, engine, picture, frames)
            plain.append(without)
            costs.append(without - mean_psnr((cut(one, place, size) for one in whole), original, pixels))
        print(f"{path.name}: PSNR {statistics.mean(plain[-PLACES:]):.2f} dB, cost of pasting back ", end="")
        print(" ".join(f"{cost:.2f}" for cost in costs[-PLACES:]), flush=True)
    print(f"PSNR(B, A): mean {statistics.mean(plain):.2f} dB, from {min(plain):.2f} to {max(plain):.2f}")
    print(f"PSNR(B, A) - PSNR(C, A): mean {statistics.mean(costs):.2f} dB, largest {max(costs):.2f}")


def sheet(
    portraits: Path, driving: Path, output: Annotated[Path, tyro.conf.arg(aliases=["-o"])], weights: str = "mini"
) -> None:
    """Write a contact sheet: a row for each portrait, of the place in its photo before and after, and of the motion."""
    talker = cbtalk.load(weights)
    size, side = talker.image_size, 320
    motion = driving_keypoints(talker, driving)
    random = np.random.default_rng(1)
    rows = []
    for number, path in enumerate(sorted(portraits.glob("*.jpg"))):
        portrait = read_image(path)
        image, _ = scene(portrait, known_square(portrait), number, random)
        face = largest(image)
        assert face is not None
        found = frame(image, face)
        picture = cut(image, found, size)
        engine, frames = animated(talker, picture, motion)
        whole = list(pasted(image, found, engine, picture, frames))
        view = found.scaled(1.6)._replace(angle=0.0)
        cells = [cut(one, view, side) for one in (image, *whole[1::2])]
        square = np.asarray(Image.fromarray(frames[-1]).resize((side, side)))
        rows.append(np.concatenate([*cells, square], axis=1))
    Image.fromarray(np.concatenate(rows)).save(output)


def large_photo(portrait: Image8, side: int) -> Image8:
    """A photo of 12 megapixels with a portrait (H, H, 3) of so many pixels in it."""
    grain = np.random.default_rng(0).normal(0, 3, (3000, 4000, 1))
    y, x = np.mgrid[:3000, :4000]
    light = 120 + 60 * np.sin(x / 400) * np.cos(y / 300)
    photo = (light[..., None] + grain).clip(0, 255).astype(np.uint8).repeat(3, axis=2)
    photo[900 : 900 + side, 1500 : 1500 + side] = np.asarray(Image.fromarray(portrait).resize((side, side)))
    return photo


def time_(
    portrait: Path, driving: Path, weights: str = "mini", frames: int = 50, rounds: int = 3, side: int = 1000
) -> None:
    """Print how long renders take with and without pasting back into 12 megapixels, by turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photo = folder / "photo.png"
        Image.fromarray(large_photo(read_image(portrait), side)).save(photo, compress_level=1)
        how = {
            label: RenderOptions(paste=paste, driving=DrivingOptions("centre", max_frames=frames))
            for label, paste in (("plain", False), ("paste", True))
        }
        taken: dict[str, list[tuple[float, float]]] = {label: [] for label in how}
        for _ in range(rounds):
            for label, options in how.items():
                busy = time.process_time()
                report = render_video(photo, driving, folder / "out.mp4", options, weights=weights)
                taken[label].append((report.seconds, time.process_time() - busy))
        for label, pairs in taken.items():
            seconds, cpu = (statistics.median(values) for values in zip(*pairs, strict=True))
            each, busy = seconds / frames * 1000, cpu / frames * 1000
            print(f"{label}: {seconds:.2f} s, {each:.0f} ms a frame, {busy:.0f} ms of CPU")
        ratios = [
            statistics.median(p[k] for p in taken["paste"]) / statistics.median(p[k] for p in taken["plain"])
            for k in (0, 1)
        ]
        print(f"ratio: {ratios[0]:.2f} of time, {ratios[1]:.2f} of CPU time")


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"quality": quality, "sheet": sheet, "time": time_})
