import os
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image, ImageCms

from cbtalk.errors import InputError
from cbtalk.media.images import read_image
from tests.helpers.videos import quadrants

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def corners(image: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(int(v) for v in image[y, x]) for y, x in ((2, 2), (2, -3), (-3, 2), (-3, -3))]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = Image.fromarray(quadrants())
    stored_as = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = upright if stored_as is None else upright.transpose(stored_as)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), quadrants())


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_laid_over_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    image.paste((0, 0, 0, 128), (0, 0, 16, 32))
    path = tmp_path / "a.tif" if mode == "PA" else tmp_path / "a.png"
    if mode == "PA":
        palette = image.convert("RGBA").quantize(4)
        palette.save(tmp_path / "a.png")
        path = tmp_path / "a.png"
    else:
        image.convert(mode).save(path)
    pixels = read_image(path)
    assert pixels.shape == (32, 32, 3)
    assert tuple(pixels[16, 24]) == WHITE
    assert abs(int(pixels[16, 8, 0]) - 127) <= 1


def test_a_transparent_palette_entry_is_white(tmp_path: Path) -> None:
    image = Image.fromarray(quadrants()).quantize(8)
    blue = image.getpixel((2, 46))
    assert isinstance(blue, int)
    image.save(tmp_path / "a.png", transparency=blue)
    assert corners(read_image(tmp_path / "a.png")) == [RED, GREEN, WHITE, WHITE]


@pytest.mark.parametrize("mode", ["P", "RGB", "YCbCr", "CMYK"])
def test_colours_survive_every_mode(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(quadrants()).convert(mode)
    path = tmp_path / ("a.tif" if mode in ("YCbCr", "CMYK") else "a.png")
    image.save(path)
    if mode == "YCbCr" and int(PIL.__version__.partition(".")[0]) < 13:
        pytest.skip("Pillow before 13 cannot read the YCbCr TIFF that it writes")
    for seen, meant in zip(corners(read_image(path)), [RED, GREEN, BLUE, WHITE], strict=True):
        assert np.abs(np.subtract(seen, meant)).max() <= 2


@pytest.mark.parametrize("mode", ["1", "L"])
def test_greyscale_becomes_three_equal_channels(tmp_path: Path, mode: str) -> None:
    Image.fromarray(quadrants()[..., 0]).convert(mode).save(tmp_path / "a.png")
    assert corners(read_image(tmp_path / "a.png")) == [WHITE, (0, 0, 0), (0, 0, 0), WHITE]


def test_sixteen_bits_keep_their_brightness(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 32 * 32).round().astype(np.uint16).reshape(32, 32)
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.fromarray(values).save(tmp_path / "a.tif")
    Image.fromarray((values / 65535).astype(np.float32)).save(tmp_path / "float.tif")
    for name in ("a.png", "a.tif", "float.tif"):
        pixels = read_image(tmp_path / name)
        np.testing.assert_allclose(pixels[..., 1], values / 257, atol=0.51)


def test_sixteen_bit_colour_keeps_its_brightness(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 32 * 32 * 3).round().astype(">u2").reshape(32, 32, 3)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 32, 32, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    data = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    np.testing.assert_allclose(read_image(tmp_path / "a.png"), values / 257, atol=1)


def test_an_embedded_srgb_profile_changes_nothing(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(quadrants()).save(tmp_path / "a.png", icc_profile=profile)
    assert np.abs(read_image(tmp_path / "a.png").astype(int) - quadrants()).max() <= 1


def test_an_embedded_lab_profile_or_rubbish_is_survived(tmp_path: Path) -> None:
    for profile in (ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(), b"rubbish"):
        Image.fromarray(quadrants()).save(tmp_path / "a.png", icc_profile=profile)
        np.testing.assert_array_equal(read_image(tmp_path / "a.png"), quadrants())


def check_refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_image(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def test_bad_images_are_refused_in_one_line(tmp_path: Path) -> None:
    assert "no such file" in check_refused(tmp_path / "none.png")
    assert "folder" in check_refused(tmp_path)
    (tmp_path / "empty.png").touch()
    assert "empty" in check_refused(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("not an image")
    assert "not an image" in check_refused(tmp_path / "text.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "tiny.png")
    assert "1 x 1" in check_refused(tmp_path / "tiny.png")
    Image.new("RGB", (500, 15)).save(tmp_path / "flat.png")
    assert "500 x 15" in check_refused(tmp_path / "flat.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert "ordinary file" in check_refused(tmp_path / "pipe.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp", "tif"])
def test_cut_off_images_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    check_refused(path)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    Image.new("1", (30000, 30000)).save(tmp_path / "bomb.png")
    assert "million pixels" in check_refused(tmp_path / "bomb.png")


def test_damaged_images_never_raise_anything_else(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    Image.fromarray(quadrants()).save(tmp_path / "good.png")
    good = (tmp_path / "good.png").read_bytes()
    for trial in range(60):
        data = bytearray(good)
        for _ in range(1 + trial % 4):
            data[int(generator.integers(8, len(data)))] = int(generator.integers(256))
        (tmp_path / "a.png").write_bytes(data)
        try:
            assert read_image(tmp_path / "a.png").shape[2] == 3
        except InputError as error:
            assert "\n" not in str(error)
