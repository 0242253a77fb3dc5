"""Whole sources as outputs: photos and videos with an animated square in them, and outputs of a given size."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cbtalk.errors import ConfigError, InputError
from cbtalk.media.crop import CropBox
from cbtalk.media.video_writer import VideoWriter
from cbtalk.media.yuv import Surroundings
from cbtalk.model.talker import Talker
from cbtalk.render import DrivingOptions, RenderOptions, render_video, write_motion
from cbtalk.render.cache import RenderCache
from tests.helpers.videos import numbered, write_clip
from tests.render.conftest import frames_of, numbers_of
from tests.render.fake_talker import SIZE, FakeTalker, level

MakeClip = Callable[..., Path]
CROP = CropBox(40, 20, 80)
PASTE = RenderOptions(crop=CROP, paste=True, driving=DrivingOptions(crop="centre"))
NUMBER = 20  # what the flat grey middle of the photo shows


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[NDArray[np.uint8]]:
    """The frames that the writer is given, in their surroundings."""
    frames: list[NDArray[np.uint8]] = []

    class Recorder(VideoWriter):
        def __init__(self, *arguments: object, surroundings: Surroundings | None = None, **options: object) -> None:
            super().__init__(*arguments, surroundings=surroundings, **options)  # type: ignore[arg-type]
            self.around = surroundings

        def write(self, image: NDArray[np.uint8], pts: int, duration: int | None = None) -> None:
            whole = image.copy()
            if self.around is not None:
                whole, left, top = self.around.image.copy(), self.around.left, self.around.top
                whole[top : top + len(image), left : left + image.shape[1]] = image
            frames.append(whole)
            super().write(image, pts, duration)

    monkeypatch.setattr("cbtalk.render.rendering.VideoWriter", Recorder)
    return frames


def noisy_photo(height: int = 150, width: int = 200) -> NDArray[np.uint8]:
    """Noise around a grey square at CROP."""
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[CROP.y : CROP.y + CROP.size, CROP.x : CROP.x + CROP.size] = 4 * NUMBER
    return image


def saved(path: Path, image: NDArray[np.uint8], **options: object) -> Path:
    Image.fromarray(image).save(path, **options)  # type: ignore[arg-type]
    return path


def middle(image: NDArray[np.uint8], crop: CropBox = CROP) -> int:
    """The number that the middle of a square shows."""
    x, y = crop.x + crop.size // 2, crop.y + crop.size // 2
    return round(float(np.median(image[y - 8 : y + 8, x - 8 : x + 8])) / 4)


def test_the_photo_moves_in_its_square_alone(
    fake: FakeTalker, given: list[NDArray[np.uint8]], make_clip: MakeClip, tmp_path: Path
) -> None:
    image = noisy_photo()
    driving = make_clip([5, 7, 15, 3], sound="aac")
    report = render_video(saved(tmp_path / "p.png", image), driving, tmp_path / "o.mp4", PASTE)
    around = np.ones(image.shape[:2], bool)
    around[CROP.y : CROP.y + CROP.size, CROP.x : CROP.x + CROP.size] = False
    assert [middle(frame) for frame in given] == [20, 22, 30, 18]
    for frame in given:
        assert np.array_equal(frame[around], image[around])
    decoded = [frame.image for frame in frames_of(tmp_path / "o.mp4")]
    assert [middle(frame) for frame in decoded] == [20, 22, 30, 18]
    assert decoded[0].shape == image.shape and report.notes == []


@pytest.mark.parametrize(("height", "width"), [(151, 201), (101, 200), (150, 121)])
def test_odd_sizes_become_even(fake: FakeTalker, make_clip: MakeClip, tmp_path: Path, height: int, width: int) -> None:
    """The square reaches to the edges that are doubled."""
    photo = saved(tmp_path / "p.png", noisy_photo(150, 200)[:height, :width] if height < 151 else noisy_photo(151, 201))
    render_video(photo, make_clip([5, 7]), tmp_path / "o.mp4", PASTE)
    last = frames_of(tmp_path / "o.mp4")[-1].image
    assert last.shape == (height + height % 2, width + width % 2, 3) and middle(last) == NUMBER + 2


def test_a_photo_that_is_too_large_is_scaled_down_and_said_so(
    fake: FakeTalker, make_clip: MakeClip, tmp_path: Path
) -> None:
    photo = np.full((150, 8192, 3), 4 * NUMBER, np.uint8)
    report = render_video(saved(tmp_path / "p.png", photo), make_clip([5, 9]), tmp_path / "o.mp4", PASTE)
    last = frames_of(tmp_path / "o.mp4")[-1].image
    assert last.shape == (76, 4096, 3)
    assert middle(last, CropBox(20, 10, 40)) == NUMBER + 4 and round(float(np.median(last)) / 4) == NUMBER
    assert report.notes == [f"{tmp_path}/p.png: is 8192 x 150 pixels; the output's longer side is 4096"]


@pytest.mark.parametrize("size", [100, 400])
def test_the_output_size_of_a_whole_photo_is_its_longer_side(
    fake: FakeTalker, make_clip: MakeClip, tmp_path: Path, size: int
) -> None:
    options = replace(PASTE, output_size=size)
    render_video(saved(tmp_path / "p.png", noisy_photo()), make_clip([5, 9]), tmp_path / "o.mp4", options)
    last = frames_of(tmp_path / "o.mp4")[-1].image
    assert last.shape == (round(size * 0.75) + round(size * 0.75) % 2, size, 3)
    assert middle(last, CropBox(*(round(number * size / 200) for number in CROP))) == NUMBER + 4


def test_the_output_size_of_a_square_is_its_side(
    fake: FakeTalker, portrait: Path, make_clip: MakeClip, tmp_path: Path
) -> None:
    options = RenderOptions(crop="centre", output_size=200, driving=DrivingOptions(crop="centre"))
    render_video(portrait, make_clip([5, 9]), tmp_path / "o.mp4", options)
    assert [frame.image.shape for frame in frames_of(tmp_path / "o.mp4")] == [(200, 200, 3)] * 2
    assert numbers_of(tmp_path / "o.mp4") == [20, 24]


@pytest.mark.parametrize("size", [15, 14, 0, -2, 101, 4098])
def test_sizes_that_no_video_has_are_refused(size: int) -> None:
    with pytest.raises(ConfigError, match="even number from 16 to 4096"):
        RenderOptions(output_size=size)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"paste": True}, "--paste"),
        ({"output_size": 512}, "--output-size"),
        ({"paste": True, "output_size": 512}, "--paste and --output-size"),
    ],
)
def test_compare_shows_squares_as_they_are(other: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=f"^--compare .* leave out {named} with it$"):
        RenderOptions(compare=True, **other)  # type: ignore[arg-type]


def test_photos_come_upright_and_over_white(fake: FakeTalker, make_clip: MakeClip, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    turned = saved(tmp_path / "p.jpg", np.rot90(noisy_photo()), exif=exif, quality=95)
    clear = np.dstack([noisy_photo(), np.zeros((150, 200), np.uint8)])
    clear[CROP.y : CROP.y + CROP.size, CROP.x : CROP.x + CROP.size, 3] = 255
    for photo in (turned, saved(tmp_path / "p.png", clear)):
        render_video(photo, make_clip([5, 9]), tmp_path / "o.mp4", PASTE)
        last = frames_of(tmp_path / "o.mp4")[-1].image
        assert last.shape == (150, 200, 3) and middle(last) == NUMBER + 4
    assert (last[:10, :10] > 250).all()


def test_a_face_is_chosen_of_several(
    fake: FakeTalker, given: list[NDArray[np.uint8]], make_clip: MakeClip, tmp_path: Path
) -> None:
    from tests.helpers.photos import scene

    image = scene((50, 100, 200), (500, 100, 300))
    options = RenderOptions(face=1, paste=True, driving=DrivingOptions(crop="centre"))
    render_video(saved(tmp_path / "p.png", image), make_clip([5, 9]), tmp_path / "o.mp4", options)
    changed = (given[-1] != image).any(axis=-1)
    assert changed[100:300, 50:250].mean() > 0.2 and not changed[:, 400:].any()


def moving(folder: Path, numbers: list[int], rate: int = 25) -> Path:
    """A source video whose frames show numbers."""
    return write_clip(folder / "source.mp4", [numbered(number) for number in numbers], rate=rate)


WHOLE_VIDEO = RenderOptions(crop=CropBox(0, 0, 48), driving=DrivingOptions(crop="centre", batch_size=2))


@pytest.mark.parametrize("paste", [False, True])
@pytest.mark.parametrize(("sources", "drivings"), [(5, 5), (3, 7), (7, 3), (1, 4)])
def test_every_frame_of_a_source_video_is_animated(
    fake: FakeTalker, make_clip: MakeClip, tmp_path: Path, sources: int, drivings: int, paste: bool
) -> None:
    """The driving change is added to what each frame shows; the shorter video ends it."""
    source = moving(tmp_path, [20 + 3 * n for n in range(sources)])
    driving = make_clip([5 + n % 2 * 4 for n in range(drivings)])
    report = render_video(source, driving, tmp_path / "o.mp4", replace(WHOLE_VIDEO, paste=paste))
    frames = [frame.image for frame in frames_of(tmp_path / "o.mp4")]
    shown = [middle(frame, CropBox(0, 0, 48)) for frame in frames]
    assert shown == [20 + 3 * n + n % 2 * 4 for n in range(min(sources, drivings))]
    assert report.frames == len(frames) and {frame.shape for frame in frames} == {
        (48, 64, 3) if paste else (SIZE, SIZE, 3)
    }


def test_around_the_square_a_source_video_is_as_it_was(
    fake: FakeTalker, given: list[NDArray[np.uint8]], make_clip: MakeClip, tmp_path: Path
) -> None:
    source = moving(tmp_path, [20, 30, 40])
    render_video(source, make_clip([5, 9, 2]), tmp_path / "o.mp4", replace(WHOLE_VIDEO, paste=True))
    for frame, before in zip(given, frames_of(source), strict=True):
        assert np.array_equal(frame[:, 48:], before.image[:, 48:])
        assert not np.array_equal(frame, before.image) or frame is given[0]


def test_a_source_video_keeps_its_own_pace(fake: FakeTalker, make_clip: MakeClip, tmp_path: Path) -> None:
    """Twice the driving rate: every second frame is shown, at the driving times."""
    source = moving(tmp_path, list(range(10, 22)), rate=50)
    driving = make_clip([5] * 20, pts=[2, *range(3, 22)], rate=25)
    render_video(source, driving, tmp_path / "o.mp4", WHOLE_VIDEO)
    written = frames_of(tmp_path / "o.mp4")
    assert [middle(frame.image, CropBox(0, 0, 48)) for frame in written] == [10, 12, 14, 16, 18, 20]
    assert [frame.pts * frame.time_base for frame in written] == [Fraction(n, 25) for n in range(6)]


def test_a_motion_file_drives_a_source_video(fake: FakeTalker, make_clip: MakeClip, tmp_path: Path) -> None:
    source, driving = moving(tmp_path, [20, 30, 40]), make_clip([5, 9, 2, 8, 8])
    write_motion(driving, tmp_path / "m.safetensors", DrivingOptions(crop="centre"))
    options = replace(WHOLE_VIDEO, driving=DrivingOptions())
    render_video(source, tmp_path / "m.safetensors", tmp_path / "o.mp4", options)
    assert [middle(frame.image, CropBox(0, 0, 48)) for frame in frames_of(tmp_path / "o.mp4")] == [20, 34, 37]


def test_a_source_video_beside_driving_and_result(fake: FakeTalker, make_clip: MakeClip, tmp_path: Path) -> None:
    options = replace(WHOLE_VIDEO, compare=True)
    render_video(moving(tmp_path, [20, 30]), make_clip([5, 9]), tmp_path / "o.mp4", options)
    last = frames_of(tmp_path / "o.mp4")[-1].image
    panels = [round(float(np.median(last[:, start : start + SIZE])) / 4) for start in (0, SIZE, 2 * SIZE)]
    assert panels == [30, 9, 34]


def test_faults_of_a_source_video_are_one_line(fake: FakeTalker, make_clip: MakeClip, tmp_path: Path) -> None:
    source = moving(tmp_path, [20, 30])
    with pytest.raises(InputError, match=r"source\.mp4: no face is found in the video; .*--crop x,y,size"):
        render_video(source, make_clip([5, 9]), tmp_path / "o.mp4", replace(WHOLE_VIDEO, crop=None))
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match=r"broken\.mp4"):
        render_video(tmp_path / "broken.mp4", make_clip([5, 9]), tmp_path / "o.mp4", WHOLE_VIDEO)
    assert not (tmp_path / "o.mp4").exists()


def test_a_source_video_rests_where_the_driving_motion_is_not_finite(make_clip: MakeClip, tmp_path: Path) -> None:
    talker = FakeTalker(blind_to=level(7))
    shared = RenderCache(lambda: cast(Talker, talker))
    source, driving = moving(tmp_path, [20, 30, 40, 45]), make_clip([7, 7, 5, 9])
    report = render_video(source, driving, tmp_path / "o.mp4", WHOLE_VIDEO, cache=shared)
    assert report.not_finite == 2 and report.frames == 4
    assert [middle(frame.image, CropBox(0, 0, 48)) for frame in frames_of(tmp_path / "o.mp4")][2:] == [40, 49]


def test_each_scene_of_a_source_video_has_its_own_square(
    given: list[NDArray[np.uint8]], make_clip: MakeClip, tmp_path: Path
) -> None:
    """The person is pasted back where each scene shows them, in the colours of that scene, also within a batch."""
    photos = pytest.importorskip("tests.helpers.photos", reason="scikit-image is not installed")
    left, right = (40, 40, 300), (560, 180, 240)
    scenes = [photos.scene(left), photos.scene(right) // 2 + 60]
    source = tmp_path / "source.mp4"
    write_clip(source, [scenes[n >= 3] for n in range(6)], rate=25)
    talker = FakeTalker()
    shared = RenderCache(lambda: cast(Talker, talker))
    options = RenderOptions(paste=True, driving=DrivingOptions(crop="centre", batch_size=4))
    render_video(source, make_clip([5, 5, 25, 25, 5, 25]), tmp_path / "o.mp4", options, cache=shared)
    shown = [frame.image for frame in frames_of(source)]
    for number, (frame, before) in enumerate(zip(given, shown, strict=True)):
        x, y, side = left if number < 3 else right
        rows, columns = np.nonzero((frame != before).any(axis=2))
        assert x <= columns.min() <= columns.max() < x + side + 40, number
        assert max(0, y - 60) <= rows.min() <= rows.max() < y + side, number
