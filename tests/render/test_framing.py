"""The square of a source where none is given: that of a face."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cbtalk.errors import InputError
from cbtalk.render import RenderOptions
from cbtalk.render.crop_preview import crop_preview
from cbtalk.render.framing import image_of, source_place
from cbtalk.render.report import Report
from tests.helpers.photos import scene


def the_source(image: NDArray[np.uint8], **options: object) -> tuple[NDArray[np.uint8], Report]:
    report = Report(Path("out.mp4"))
    place = source_place(Path("p.png"), image, RenderOptions(**options), report)  # type: ignore[arg-type]
    return image_of(image, place, 128), report


def alike(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Mean difference of the middles, in levels."""
    middle = slice(32, 96)
    return float(np.abs(a[middle, middle].astype(int) - b[middle, middle].astype(int)).mean())


def test_the_square_of_a_face_is_the_same_wherever_it_lies() -> None:
    near, report = the_source(scene((600, 60, 420)))
    far, _ = the_source(scene((100, 300, 180)))
    assert near.shape == far.shape == (128, 128, 3)
    assert alike(near, far) < 12 < alike(near, np.roll(far, 12, axis=1))
    assert report.notes == []


def test_a_face_is_chosen_among_several_and_the_choice_is_said() -> None:
    image = scene((50, 100, 200), (500, 100, 300))
    image[100:300, 50:250] = image[100:300, 50:250] // 2  # the left one is dark
    largest, report = the_source(image)
    left, _ = the_source(image, face=1)
    assert left.mean() < 0.7 * largest.mean()
    assert np.array_equal(the_source(image, face=(600.0, 200.0))[0], largest)
    assert report.notes == ["p.png: 2 faces; animated is the largest (--face chooses another)"]


def test_no_face_is_an_error_that_names_the_options() -> None:
    with pytest.raises(InputError, match=r"p\.png: no face is found; .*--crop x,y,size, or --crop centre"):
        the_source(scene())
    assert the_source(scene(), crop="centre")[0].shape == (128, 128, 3)


def test_the_preview_shows_faces_numbers_and_the_square(tmp_path: Path) -> None:
    image = scene((50, 100, 200), (500, 100, 300))
    Image.fromarray(image).save(tmp_path / "p.png")
    line = crop_preview(tmp_path / "p.png", tmp_path / "crop.png", 1)
    drawn = np.array(Image.open(tmp_path / "crop.png"))
    assert drawn.shape == image.shape
    assert line.startswith(f"{tmp_path}/crop.png: 2 faces; the square is ")
    x, y, side = (int(number) for number in line.rpartition(" ")[2].split(","))
    assert 50 < x + side / 2 < 250 and 100 < y + side / 2 < 300
    square, faces = (0, 210, 106), (255, 212, 0)
    assert (drawn[y : y + 3, x + side // 2] == square).all(-1).any()
    assert (drawn == faces).all(-1)[:, 500:800].any() and (drawn == faces).all(-1)[:, 50:250].any()


def test_the_preview_of_an_image_without_faces_says_so_and_writes_nothing(tmp_path: Path) -> None:
    Image.fromarray(scene()).save(tmp_path / "p.png")
    with pytest.raises(InputError, match="no face is found"):
        crop_preview(tmp_path / "p.png", tmp_path / "crop.png")
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]
