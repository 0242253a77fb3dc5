"""The moving image at the head of README: portrait, driving keypoints and result of the bundled demo, as a GIF.

    python examples/demo_image.py docs/images/demo.gif

The portrait is the public-domain image of an astronaut that scikit-image carries; needs `pip install 'cbtalk[demo]'`.
"""

import argparse
from pathlib import Path

import numpy as np
import skimage.data
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import cbtalk
from cbtalk.atomic import atomic_path
from cbtalk.media.crop import CropBox, crop_resize
from cbtalk.model.checkpoint import BUNDLED
from cbtalk.model.images import to_frames, to_images
from cbtalk.model.relative_motion import relative_keypoints
from cbtalk.render.motion_file import load_motion

FACE = CropBox(112, 10, 240)
SIDE = 224  # px of each of the three images
EVERY, RATE = 3, 25
COLOURS = 128


def keypoints_image(points: NDArray[np.float32], size: int) -> Image.Image:
    """Keypoints (K, 2) in [-1, 1] as dots."""
    image = Image.new("RGB", (size, size), (24, 24, 28))
    draw = ImageDraw.Draw(image)
    for number, (x, y) in enumerate((points + 1) / 2 * (size - 1)):
        colour = tuple(
            int(255 * part) for part in np.array([0.5 + 0.5 * np.sin(number + shift) for shift in (0, 2, 4)])
        )
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour)
    return image


@torch.inference_mode()
def frames(limit: int | None) -> list[Image.Image]:
    """Every third frame of the demo: three images side by side."""
    talker = cbtalk.load("mini")
    motion = load_motion(BUNDLED / "demo_motion.safetensors", fingerprint=None, num_keypoints=None)
    portrait = crop_resize(skimage.data.astronaut(), FACE, talker.image_size)
    state = talker.encode_source(to_images(torch.from_numpy(portrait)[None]))
    left = Image.fromarray(portrait).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    made = []
    for index in range(0, motion.frames, EVERY)[:limit]:
        driving = motion[slice(index, index + 1)]
        placed = relative_keypoints(state.keypoints, driving, motion[slice(0, 1)])
        result = Image.fromarray(to_frames(talker.animate_keypoints(state, placed))[0])
        row = Image.new("RGB", (3 * SIDE, SIDE))
        for column, image in enumerate((left, keypoints_image(driving.value[0].numpy(), SIDE), result)):
            row.paste(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC), (column * SIDE, 0))
        made.append(row)
    return made


def main() -> None:
    """Writes the GIF; all of its frames have the same colours, so that nothing flickers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--frames", type=int, help="at most so many")
    arguments = parser.parse_args()
    made = frames(arguments.frames)
    palette = made[len(made) // 2].quantize(COLOURS)
    first, *rest = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in made)
    milliseconds = 1000 * EVERY // RATE
    with atomic_path(arguments.output) as temporary:
        first.save(temporary, format="GIF", save_all=True, append_images=rest, duration=milliseconds, loop=0)


if __name__ == "__main__":
    main()
