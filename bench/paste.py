"""The cost of pasting the animated square back, in likeness and in time, and images of it to look at.

python -m bench.paste quality --portraits FOLDER --driving CLIP
python -m bench.paste sheet --portraits FOLDER --driving CLIP -o SHEET.png
python -m bench.paste time --portrait FILE --driving CLIP
python -m bench.paste stages FOLDER

quality: every portrait lies eight times in a photo of something else, as in `bench.faces`. Three renders by the same
motion are compared in the coordinates of the portrait's own square, S x S pixels: A of the original portrait, B of the
square found in the photo, C the photo with B pasted back into it. Pixels that the portrait or the square found does not
cover are left out of all. Printed is PSNR(B, A) - PSNR(C, A), means over the frames: what pasting back costs. Under the
feather at the rim the photo is meant to be seen, which does not move; so the same follows without the feather's pixels,
and then PSNR(A, P) - PSNR(C, P) against the portrait P itself, whole square: which of A and C has kept more of it.
"""

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image

import cbtalk
from bench.faces import PLACES, known_square, largest, scene
from cbtalk.allocator import keep_freed_memory
from cbtalk.faces import Square, cut, frame
from cbtalk.media.images import Image8, read_image
from cbtalk.media.video_reader import BadFrame, open_video
from cbtalk.media.video_writer import VideoWriter
from cbtalk.media.yuv import Surroundings, ToYuvInPlace
from cbtalk.model.keypoints import Keypoints
from cbtalk.model.talker import Talker
from cbtalk.render import DrivingOptions, RenderOptions, render_video
from cbtalk.render.engine import Engine
from cbtalk.render.paste import FEATHER, Paste, colour_difference

MOMENTS = 8  # of the driving clip, evenly spread
MEASURES = ("whole square, PSNR(B, A)", "without the feather, PSNR(B, A)", "whole square, PSNR(A, P)")


def driving_keypoints(talker: Talker, clip: Path) -> Keypoints:
    """Those of the first frame of a prepared clip and of MOMENTS later ones, (1 + MOMENTS, K)."""
    with open_video(clip) as reader:
        images = [frame.image for frame in reader if not isinstance(frame, BadFrame)]
    rows = np.linspace(0, len(images) - 1, 1 + MOMENTS).round().astype(int)
    size = talker.image_size
    driving = np.stack([np.asarray(Image.fromarray(images[row]).resize((size, size))) for row in rows])
    return Engine(talker, driving[0]).detect(driving)


def animated(talker: Talker, crop: Image8, driving: Keypoints) -> tuple[Engine, Image8]:
    """A source (S, S, 3) by the motion of driving keypoints since their first: (MOMENTS, S, S, 3)."""
    engine = Engine(talker, crop)
    engine.start_from(Keypoints(*(part[:1] for part in driving)))
    return engine, engine.render(Keypoints(*(part[1:] for part in driving))).images


def pasted(image: Image8, square: Square, engine: Engine, crop: Image8, frames: Image8) -> Iterator[Image8]:
    """A photo (H, W, 3) with the frames of its square in it."""
    height, width = image.shape[:2]
    paste = Paste(height, width, square, colour_difference(crop, engine.unmoved()[0]))
    for one in frames:
        result = image.copy()
        paste.box.of(result)[:] = paste(image, one)
        yield result


def mean_psnr(frames: Iterable[Image8], wanted: Image8, pixels: NDArray[np.bool_]) -> float:
    """In dB, of some pixels (S, S) of images (T, S, S, 3)."""
    squared = [
        np.square(one[pixels].astype(float) - other[pixels]).mean() for one, other in zip(frames, wanted, strict=True)
    ]
    return float(np.mean(20 * np.log10(255) - 10 * np.log10(squared)))


def covered(view: Square, inside: tuple[float, float], size: int) -> NDArray[np.bool_]:
    """(size, size): which pixels of the view of a square have both coordinates in the image between two numbers."""
    positions = (np.arange(size) + 0.5) / size
    (x0, y0), (x1, y1), (x2, y2) = (view.point(u, v) for u, v in ((0, 0), (1, 0), (0, 1)))
    x = x0 + (x1 - x0) * positions + (x2 - x0) * positions[:, None]
    y = y0 + (y1 - y0) * positions + (y2 - y0) * positions[:, None]
    return (np.minimum(x, y) >= inside[0]) & (np.maximum(x, y) <= inside[1])


def within(square: Square, other: Square, size: int) -> Square:
    """A square of an image in the coordinates of the pixels of another, of size x size."""
    scale = size / other.side
    cosine, sine = math.cos(math.radians(other.angle)), math.sin(math.radians(other.angle))
    across, down = square.x - other.x, square.y - other.y
    x, y = across * cosine + down * sine, down * cosine - across * sine
    return Square(x * scale + size / 2, y * scale + size / 2, square.side * scale, square.angle - other.angle)


def costs_in(
    talker: Talker, portrait: Image8, known: Square, original: Image8, motion: Keypoints, image: Image8, place: Square
) -> list[tuple[float, float]]:
    """PSNR before and after pasting, for each of MEASURES, of one photo in which a portrait lies at `place`."""
    size = talker.image_size
    face = largest(image)
    assert face is not None
    found = frame(image, face)
    crop = cut(image, found, size)
    engine, frames = animated(talker, crop, motion)
    view = within(place, found, size)
    plain = [cut(one, view, size) for one in frames]
    whole = [cut(one, place, size) for one in pasted(image, found, engine, crop, frames)]
    rows = []
    for margin in (0.0, FEATHER * size):
        pixels = covered(known, (0, len(portrait)), size) & covered(view, (margin, size - margin), size)
        rows.append((mean_psnr(plain, original, pixels), mean_psnr(whole, original, pixels)))
        if margin == 0:
            still = np.broadcast_to(cut(portrait, known, size), original.shape)
            against = mean_psnr(original, still, pixels), mean_psnr(whole, still, pixels)
    return [*rows, against]


def quality(portraits: Path, driving: Path, weights: str = "mini") -> None:
    """Print what pasting back costs in PSNR against the render of the original portrait."""
    talker = cbtalk.load(weights)
    motion = driving_keypoints(talker, driving)
    random = np.random.default_rng(0)
    rows = []
    for path in sorted(portraits.glob("*.jpg")):
        portrait = read_image(path)
        known = known_square(portrait)
        original = animated(talker, cut(portrait, known, talker.image_size), motion)[1]
        for number in range(PLACES):
            rows.append(costs_in(talker, portrait, known, original, motion, *scene(portrait, known, number, random)))
        print(path.name)
        _print_costs(rows[-PLACES:])
    print("all")
    _print_costs(rows)


def _print_costs(rows: list[list[tuple[float, float]]]) -> None:
    for name, pairs in zip(MEASURES, zip(*rows, strict=True), strict=True):
        plain, costs = [b for b, _ in pairs], [b - c for b, c in pairs]
        most = sum(cost <= 1.5 for cost in costs)
        print(
            f"  {name}: {statistics.mean(plain):.2f} dB; cost mean {statistics.mean(costs):.2f} dB, largest "
            f"{max(costs):.2f}, at most 1.5 in {most} of {len(costs)}",
            flush=True,
        )


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
        crop = cut(image, found, size)
        engine, frames = animated(talker, crop, motion)
        whole = list(pasted(image, found, engine, crop, frames))
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
        for _ in range(rounds):  # by turns, for the machine may have other work at times
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


def stages(folder: tyro.conf.Positional[Path], side: int = 900, megapixels: int = 12) -> None:
    """Print what pasting a square of `side` back into a photo costs, by its parts: upright and turned."""
    height, width = (round(part * math.sqrt(megapixels / 12)) for part in (3000, 4000))
    photo = large_photo(np.zeros((16, 16, 3), np.uint8), 16)[:height, :width]
    images = np.random.default_rng(0).integers(100, 120, (8, 256, 256, 3), dtype=np.uint8)
    for angle in (0.0, 20.0):
        costs = _stages(folder / "out.mp4", photo, images, Square(width / 2, height / 2, side, angle))
        print(f"turned by {angle:.0f} degrees:", ", ".join(f"{name} {cost:.0f} ms" for name, cost in costs.items()))


def _stages(path: Path, photo: Image8, images: Image8, square: Square) -> dict[str, float]:
    height, width = photo.shape[:2]
    paste = Paste(height, width, square, np.zeros(images.shape[1:], np.float32))
    surroundings = Surroundings(photo, paste.box.left, paste.box.top)
    size = paste.box.right - paste.box.left, paste.box.bottom - paste.box.top
    results = [paste(photo, image) for image in images]
    convert = ToYuvInPlace(surroundings, *size)
    costs = {
        "paste": _cpu(lambda n: paste(photo, images[n % 8])),
        "convert": _cpu(lambda n: convert(results[n % 8])),
    }
    rate = Fraction(25)
    with VideoWriter(
        path, width=size[0], height=size[1], rate=rate, time_base=1 / rate, surroundings=surroundings
    ) as writer:
        costs["encode"] = _cpu(lambda n: writer.write(results[n % 8], n)) - costs["convert"]
    return costs


def _cpu(work: Callable[[int], object], times: int = 24) -> float:
    """Milliseconds of CPU that a call takes, all threads of the process together."""
    for number in range(4):
        work(number)
    begin = time.process_time()
    for number in range(4, 4 + times):
        work(number)
    return (time.process_time() - begin) / times * 1000


if __name__ == "__main__":
    keep_freed_memory()  # as the command line does
    tyro.extras.subcommand_cli_from_dict({"quality": quality, "sheet": sheet, "time": time_, "stages": stages})
