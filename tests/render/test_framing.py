"""The squares that a render takes where none is given: those of the faces."""

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cbtalk.errors import InputError
from cbtalk.media.crop import CropBox
from cbtalk.render import DrivingOptions, RenderOptions
from cbtalk.render.crop_preview import crop_preview
from cbtalk.render.framing import source_picture, with_crop
from cbtalk.render.report import Report

data = pytest.importorskip("skimage.data", reason="scikit-image, which carries the portrait, is not installed")
HEAD = (84, 0, 280)  # the astronaut's: left, top, side


def scene(*places: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A photo of coffee with the astronaut's head in squares (left, top, side)."""
    photo = Image.fromarray(data.coffee()).resize((960, 540))
    left, top, side = HEAD
    head = Image.fromarray(data.astronaut()[top : top + side, left : left + side])
    for x, y, size in places:
        photo.paste(head.resize((size, size), Image.Resampling.LANCZOS), (x, y))
    return np.array(photo)


def write_video(path: Path, frames: list[NDArray[np.uint8]]) -> Path:
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def the_source(image: NDArray[np.uint8], **options: object) -> tuple[NDArray[np.uint8], Report]:
    report = Report(Path("out.mp4"))
    return source_picture(Path("p.png"), image, RenderOptions(**options), 128, report), report  # type: ignore[arg-type]


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


def test_a_driving_video_has_one_square_for_all_frames(tmp_path: Path) -> None:
    frames = [scene((300 + 2 * i, 100, 260)) for i in range(8)]
    frames[3] = scene()  # nobody, for a moment
    report = Report(tmp_path / "out.mp4")
    options = with_crop(write_video(tmp_path / "d.mp4", frames), DrivingOptions(batch_size=2), report)
    crop = options.crop
    assert isinstance(crop, CropBox) and options.batch_size == 2 and report.notes == []
    still = with_crop(write_video(tmp_path / "s.mp4", [scene((307, 100, 260))] * 2), DrivingOptions(), report).crop
    assert isinstance(still, CropBox)
    assert max(abs(a - b) for a, b in zip(crop, still, strict=True)) <= 6


def test_of_several_people_the_one_longest_in_view_is_followed(tmp_path: Path) -> None:
    frames = [
        scene((60, 60, 220)),
        *(scene((60, 60, 220), (600, 100, 300)) for _ in range(3)),
        *[scene((60, 60, 220))] * 3,
    ]
    path, report = write_video(tmp_path / "d.mp4", frames), Report(tmp_path / "out.mp4")
    crop = with_crop(path, DrivingOptions(), report).crop
    assert isinstance(crop, CropBox) and crop.x + crop.size / 2 < 300
    assert report.notes == [f"{path}: 2 people; followed is the one longest in view (--driving-face chooses another)"]
    other = with_crop(path, DrivingOptions(face="largest"), report).crop
    assert isinstance(other, CropBox) and other.x + other.size / 2 > 600


def test_a_video_of_nobody_says_so(tmp_path: Path) -> None:
    path = write_video(tmp_path / "d.mp4", [scene()] * 3)
    with pytest.raises(InputError, match=r"no face is found in the video; .*--driving-crop"):
        with_crop(path, DrivingOptions(), Report(tmp_path / "out.mp4"))
    assert with_crop(path, DrivingOptions(crop="centre"), Report(tmp_path / "out.mp4")).crop == "centre"


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


def test_the_preview_of_a_picture_without_faces_says_so_and_writes_nothing(tmp_path: Path) -> None:
    Image.fromarray(scene()).save(tmp_path / "p.png")
    with pytest.raises(InputError, match="no face is found"):
        crop_preview(tmp_path / "p.png", tmp_path / "crop.png")
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]
