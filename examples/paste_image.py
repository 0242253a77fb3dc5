"""The image of docs/guides/portraits.md: the face found in a photo, its square animated, the photo given back.

    python examples/paste_image.py docs/images/paste.webp

The photo is the public-domain image of an astronaut that scikit-image carries; needs `pip install 'cbtalk[demo]'`.
"""

import argparse
import tempfile
from pathlib import Path

import skimage.data
from PIL import Image

from cbtalk.atomic import atomic_path
from cbtalk.cli import main as cbtalk
from cbtalk.media.images import Image8
from cbtalk.media.video_reader import Frame, open_video
from cbtalk.model.checkpoint import BUNDLED

SIDE = 360  # px of each of the three images
MOMENT = 22  # of the motion: the head is turned


def last_frame(path: Path) -> Image8:
    """The last frame of a video."""
    with open_video(path) as reader:
        return [frame.image for frame in reader if isinstance(frame, Frame)][-1]


def rendered(photo: Path, *options: str) -> Image.Image:
    """The moment of a render with these options."""
    output = photo.with_suffix(".mp4")
    motion = str(BUNDLED / "shake_motion.safetensors")
    cbtalk(["render", "-s", str(photo), "-d", motion, "-o", str(output), "--max-frames", str(MOMENT), *options])
    return Image.fromarray(last_frame(output))


def main() -> None:
    """Writes the image: photo with what is found in it, square result, result with --paste."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    row = Image.new("RGB", (3 * SIDE, SIDE))
    with tempfile.TemporaryDirectory() as folder:
        photo, preview = Path(folder) / "astronaut.png", Path(folder) / "crop.png"
        Image.fromarray(skimage.data.astronaut()).save(photo)
        cbtalk(["crop", str(photo), "-o", str(preview)])
        for column, image in enumerate((Image.open(preview), rendered(photo), rendered(photo, "--paste"))):
            row.paste(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (column * SIDE, 0))
    with atomic_path(output) as temporary:
        row.save(temporary, format="WEBP", quality=85)


if __name__ == "__main__":
    main()
