"""Images from files, of whatever kind, as upright 8-bit RGB."""

import io
import os
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from cbtalk.errors import InputError
from cbtalk.media.files import check_readable, check_size

Image8 = NDArray[np.uint8]  # (H, W, 3), RGB


def read_image(path: str | os.PathLike[str]) -> Image8:
    """Read an image as (H, W, 3) uint8 RGB, upright.

    EXIF rotation is applied; an embedded colour profile is converted to sRGB; transparency is laid over white;
    palettes, greyscale and CMYK become RGB; 16 bits become 8 by scaling the full range; of an animation the first
    image is taken.

    Raises InputError for a file that is missing, damaged, cut off, no image, smaller than 16 pixels on a side, or
    larger than Pillow's limit against decompression bombs (89 megapixels).
    """
    path = Path(path)
    check_readable(path, "image")
    return decode_image(path, path)


def decode_image(file: Path | BinaryIO, path: Path) -> Image8:
    """As `read_image`, from a file or what was read of it; `path` names it in errors."""
    try:
        with (
            warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
            Image.open(file) as image,
        ):
            check_size(path, *image.size)
            image.load()
            return np.array(_rgb(ImageOps.exif_transpose(image)))
    except InputError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        limit = (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise InputError(f"{path}: has more than {limit} million pixels; make it smaller first") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: is not an image of a known kind; convert it to PNG or JPEG") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files, struct.error to KeyError
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: is damaged and cannot be read ({reason}); get the image again") from error


def _rgb(image: Image.Image) -> Image.Image:
    """An 8-bit RGB image of any Pillow mode, colours in sRGB, transparency over white."""
    profile = image.info.get("icc_profile")
    if image.mode == "F" or image.mode.startswith("I"):
        image = _eight_bit(image)
    elif image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif image.mode in ("LA", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    image = _srgb(image.convert("RGB") if alpha is not None else image, profile)
    if alpha is not None:
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=alpha)
        return white
    return image


def _eight_bit(image: Image.Image) -> Image.Image:
    """Greyscale of 16 or 32 bits or of floats to 8 bits: by the range of the type, or of [0, 1] where floats fit it."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    if image.mode == "F":
        full = 1.0 if values.max() <= 1.0 else 255.0
    else:
        full = 65535.0 if image.mode.startswith("I;16") or values.max() <= 65535 else 2.0**31 - 1
    return Image.fromarray((values * (255.0 / full)).round().clip(0, 255).astype(np.uint8))


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert by an embedded ICC profile, so that wide-gamut photographs keep their colours; without one, plainly."""
    if profile:
        try:
            converted = ImageCms.profileToProfile(
                image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError, ValueError):
            converted = None  # the profile is damaged, or of another kind than the image
        if converted is not None:
            return converted
    return image.convert("RGB")
