"""The square of a driving video where none is given: that of a face, in each scene."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from cbtalk.errors import ConfigError, InputError
from cbtalk.faces import Face
from cbtalk.media.crop import CropBox
from cbtalk.media.images import Image8
from cbtalk.render import DrivingOptions
from cbtalk.render.driving import video_info
from cbtalk.render.driving_view import driving_view
from cbtalk.render.report import Report
from tests.helpers.photos import scene

Values = NDArray[np.float64]
RATE = 5  # so that every frame is looked at


def write_video(path: Path, frames: Sequence[Image8]) -> Path:
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "15"})
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(autouse=True)
def squares(monkeypatch: pytest.MonkeyPatch) -> None:
    """A view shows the square itself in place of its pixels."""
    monkeypatch.setattr("cbtalk.render.driving_view.cut", lambda image, square, size: np.array(square[:3]))


def view_of(path: Path, options: DrivingOptions | None = None) -> tuple[Callable[..., Values], list[str]]:
    report = Report(Path("out.mp4"))
    view: Callable[..., Any] = driving_view(path, video_info(path), options or DrivingOptions(), 64, report)
    return lambda scene, time: view(np.zeros((1, 1, 3), np.uint8), scene, time), report.notes


def around_head(left: int, top: int, side: int) -> Values:
    """About the square of a head in a square of `scene`."""
    return np.array([left + 0.5 * side, top + 0.42 * side, 0.6 * side])


def near(found: Values, head: tuple[int, int, int]) -> bool:
    return bool((np.abs(found - around_head(*head)) < 0.06 * head[2]).all())


def test_the_square_rests_where_the_face_mostly_is(tmp_path: Path) -> None:
    frames = [scene((300 + 2 * i, 100, 260)) for i in range(8)]
    frames[3] = scene()  # nobody, for a moment
    view, notes = view_of(write_video(tmp_path / "d.mp4", frames))
    assert notes == [] and np.array_equal(view(0, 0.0), view(0, 1.0))
    assert near(view(0, 0.0), (308, 100, 260))


def test_a_face_is_followed_through_the_image(tmp_path: Path) -> None:
    heads = [(60 + 60 * i, 100 + 8 * i, 260) for i in range(10)]
    frames = [scene(head) for head in heads]
    frames[6] = scene()
    follow, notes = view_of(write_video(tmp_path / "d.mp4", frames), DrivingOptions(follow=True))
    assert notes == []
    assert all(near(follow(0, number / RATE), head) for number, head in enumerate(heads))


@pytest.mark.parametrize("follow", [False, True])
def test_each_scene_has_its_own_square_and_one_without_a_face_its_neighbours(tmp_path: Path, follow: bool) -> None:
    left, right = (60, 60, 220), (600, 200, 260)
    nobody = 255 - scene() // 2
    scenes = [nobody, scene(left), nobody, scene(), scene(right) // 2]
    path = write_video(tmp_path / "d.mp4", [image for image in scenes for _ in range(2)])
    view, notes = view_of(path, DrivingOptions(follow=follow))
    assert notes == [
        f"{path}: no face is found in 3 of 5 scenes, the first of them at 0.00 s; the square of the scene beside it is "
        "taken"
    ]
    assert all(near(view(number, number * 2 / RATE), left) for number in (0, 1, 2, 3))
    assert near(view(4, 8 / RATE), right)


def test_of_several_people_the_one_longest_in_view_is_watched(tmp_path: Path) -> None:
    both = scene((60, 60, 220), (600, 100, 300))
    frames = [scene((60, 60, 220)), *[both] * 3, *[scene((60, 60, 220))] * 3]
    path = write_video(tmp_path / "d.mp4", frames)
    view, notes = view_of(path)
    assert notes == [f"{path}: 2 people; watched is the one longest in view (--driving-face chooses another)"]
    assert near(view(0, 0.0), (60, 60, 220))
    for face in ("largest", 2, (700.0, 200.0)):
        view, _ = view_of(path, DrivingOptions(face=face))  # type: ignore[arg-type]
        assert near(view(0, 0.0), (600, 100, 300))
    with pytest.raises(InputError, match="face 3: only 2 faces are found in the video"):
        view_of(path, DrivingOptions(face=3))


def test_a_video_of_nobody_says_so(tmp_path: Path) -> None:
    path = write_video(tmp_path / "d.mp4", [scene()] * 3)
    for follow in (False, True):
        with pytest.raises(InputError, match=r"no face is found in the video; .*--driving-crop"):
            view_of(path, DrivingOptions(follow=follow))


def test_a_crop_that_is_given_is_seen_in_every_scene(tmp_path: Path) -> None:
    path = write_video(tmp_path / "d.mp4", [scene()] * 2)
    report = Report(tmp_path / "out.mp4")
    view = driving_view(path, video_info(path), DrivingOptions(crop=CropBox(10, 20, 64)), 64, report)
    assert report.notes == []
    for number in (0, 3):
        assert np.array_equal(view(scene(), number, 0.0), scene()[20:84, 10:74])
    with pytest.raises(ConfigError, match="leave out --driving-crop"):
        DrivingOptions(crop="centre", follow=True)


def test_a_long_scene_is_looked_at_a_bounded_number_of_times(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    looked: list[Image8] = []

    def nobody(image: Image8) -> list[Face]:
        looked.append(image[:1, :1])
        return []

    monkeypatch.setattr("cbtalk.render.scene_squares.faces_in", nobody)
    path = write_video(tmp_path / "d.mp4", [np.full((32, 32, 3), 90, np.uint8)] * 1000)
    with pytest.raises(InputError, match="no face"):
        view_of(path)
    assert 32 < len(looked) < 32 * 4
