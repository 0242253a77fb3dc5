"""The image of the page in docs/guides/app.md: its first tab after a render.

    python -m examples.app_image docs/images/app.webp

The portrait is the public-domain image of an astronaut that scikit-image carries. Needs the extras app and dev, and
Debian's packages chromium and chromium-driver.
"""

import argparse
import io
import tempfile
from pathlib import Path

import skimage.data
from PIL import Image

from cbtalk.app import AppOptions, Limits, served
from cbtalk.atomic import atomic_path
from cbtalk.batch import BatchOptions
from examples.browser import Visitor, visitor

SIZE = "1360,880"
PLAYED = 0.9  # seconds of the result that have been shown: the head is turned


def screenshot(page: Visitor, portrait: Path) -> Image.Image:
    """The tab with a portrait that shakes its head."""
    page.visit("Animate")
    page.upload("#portrait", portrait)
    page.until(lambda: page.script("return document.querySelector('#preview img')?.naturalWidth > 0"))
    page.click("#motion label", "shake")
    page.click("#animate")
    page.until(lambda: page.script("return document.querySelector('#result video')?.readyState >= 3"))
    still = f"const v = document.querySelector('#result video'); v.pause(); v.currentTime = {PLAYED}"
    page.script(still)
    page.until(lambda: page.script("return !document.querySelector('#result video').seeking"))
    page.script("window.scrollTo(0, 0)")
    return Image.open(io.BytesIO(page.driver.get_screenshot_as_png())).convert("RGB")


def main() -> None:
    """Writes the image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    options = AppOptions(BatchOptions(), Limits(upload=64, frames=1500, megapixels=24, jobs=100))
    with tempfile.TemporaryDirectory() as folder:
        portrait = Path(folder) / "astronaut.png"
        Image.fromarray(skimage.data.astronaut()).save(portrait)
        with served(options) as address, visitor(address, Path(folder), size=SIZE) as page:
            image = screenshot(page, portrait)
    with atomic_path(output) as temporary:
        image.save(temporary, format="WEBP", quality=85)


if __name__ == "__main__":
    main()
