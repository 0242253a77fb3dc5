"""Accuracy of found and framed faces: `python -m bench.faces [--clips FOLDER] --portraits FOLDER`.

Prints the shares of faces in the training clips' squares, which `cbtalk.faces.framing` is made of; how well the square
follows portraits pasted into photos, eight times each; and the time that finding takes.
"""

import argparse
import math
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import skimage.data
import torch
from numpy.typing import NDArray
from PIL import Image

from cbtalk.faces import Face, Square, find_faces, frame
from cbtalk.media.images import read_image
from cbtalk.media.video_reader import BadFrame, open_video

FRAMES = 5  # of each clip
PLACES = 8  # of each portrait
FACE_SHARE = 0.6  # of a portrait's height


class Miss(NamedTuple):
    """The distance of a found square from the known one."""

    place: float  # in sides
    side: float  # relative
    angle: float  # degrees


def largest(image: NDArray[np.uint8]) -> Face | None:
    """The largest face of an image (H, W, 3)."""
    found = find_faces(torch.from_numpy(image).permute(2, 0, 1))
    return max(found, key=lambda face: face.area, default=None)


def shares(folder: Path) -> dict[str, list[float]]:
    """Height and centre of the detector's box in the squares of each person, a mean over their frames."""
    people: dict[str, list[tuple[float, float, float]]] = {}
    for path in sorted(folder.glob("*.mp4")):
        with open_video(path) as reader:
            images = [frame.image for frame in reader if not isinstance(frame, BadFrame)]
        for image in images[:: len(images) // FRAMES + 1]:
            if face := largest(image):
                left, top, right, bottom = (face.box / image.shape[0]).tolist()
                person = path.name.split("__")[0]
                people.setdefault(person, []).append((bottom - top, (left + right) / 2, (top + bottom) / 2))
    means = [[statistics.mean(values) for values in zip(*rows, strict=True)] for rows in people.values()]
    return dict(zip(("height", "x", "y"), map(list, zip(*means, strict=True)), strict=True))


def known_square(portrait: NDArray[np.uint8]) -> Square:
    """The square of a portrait, turned by the roll that the face has in it."""
    face = largest(portrait)
    assert face is not None
    return frame(portrait, face, turn_from=0.0)


def scene(
    portrait: NDArray[np.uint8], known: Square, number: int, random: np.random.Generator
) -> tuple[NDArray[np.uint8], Square]:
    """A photo of something else with a portrait in it, and where the portrait's known square lies there."""
    width, height = ((1920, 1080), (1080, 1920))[number % 2]
    photos = (skimage.data.coffee(), skimage.data.chelsea(), skimage.data.immunohistochemistry(), skimage.data.rocket())
    photo = Image.fromarray(photos[random.integers(len(photos))]).resize((width, height))
    side, angle = round(random.uniform(90, 300) / FACE_SHARE), random.uniform(-40, 40)
    reach = 0.75 * side
    x, y = random.uniform(reach, width - reach), random.uniform(reach, height - reach)
    square = Image.fromarray(portrait).resize((side, side), Image.Resampling.LANCZOS).convert("RGBA")
    turned = square.rotate(-angle, expand=True, resample=Image.Resampling.BICUBIC)
    left, top = round(x - turned.width / 2), round(y - turned.height / 2)
    photo.paste(turned, (left, top), turned)
    pasted = Square(left + turned.width / 2, top + turned.height / 2, side, angle)
    x, y = pasted.point(known.x / portrait.shape[1], known.y / portrait.shape[0])
    return np.array(photo), Square(x, y, known.side * side / portrait.shape[0], angle + known.angle)


def miss(image: NDArray[np.uint8], known: Square) -> Miss | None:
    """The distance of the square found in an image from the known one; None where no face is found."""
    face = largest(image)
    if face is None:
        return None
    found = frame(image, face)
    turned_by = abs(found.angle - known.angle) if found.angle else 0.0
    return Miss(
        math.dist((found.x, found.y), (known.x, known.y)) / known.side, abs(found.side / known.side - 1), turned_by
    )


def main() -> None:
    """Prints shares, misses and times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="folder of training clips; without it, no shares")
    parser.add_argument("--portraits", type=Path, required=True, help="folder of square portraits")
    arguments = parser.parse_args()
    for name, values in shares(arguments.clips).items() if arguments.clips else ():
        print(
            f"{name}: median {statistics.median(values):.3f}, deviation {statistics.stdev(values):.3f} of {len(values)}"
        )
    random = np.random.default_rng(0)
    misses: list[Miss | None] = []
    for path in sorted(arguments.portraits.glob("*.jpg")):
        portrait = read_image(path)
        known = known_square(portrait)
        misses += [miss(*scene(portrait, known, number, random)) for number in range(PLACES)]
    found = [one for one in misses if one is not None]
    print(f"found: {len(found)} of {len(misses)}")
    for name, missed in zip(Miss._fields, zip(*found, strict=True), strict=True):
        print(f"{name}: median {statistics.median(missed):.3f}, largest {max(missed):.3f}")
    image = torch.from_numpy(read_image(path)).permute(2, 0, 1)
    times = []
    for _ in range(15):
        started = time.perf_counter()
        find_faces(image)
        times.append(time.perf_counter() - started)
    print(f"find_faces, {tuple(image.shape)}: {statistics.median(times) * 1000:.0f} ms")


if __name__ == "__main__":
    main()
