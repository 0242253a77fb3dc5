from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from cbtalk.errors import ConfigError, InputError, OutputError, WeightsError
from cbtalk.media.crop import CropBox
from cbtalk.media.video_reader import open_video
from cbtalk.media.video_writer import SYNTHETIC_NOTICE
from cbtalk.render import DrivingOptions, RenderOptions, render_video, write_motion
from tests.helpers.videos import overwrite_frames
from tests.render.conftest import MARGIN, frames_of, left_in, numbers_of
from tests.render.fake_talker import SIZE, FakeTalker, level

MakeClip = Callable[..., Path]
# The images of these tests have no faces.
CENTRED = DrivingOptions(crop="centre")
RELATIVE = RenderOptions(crop="centre", driving=CENTRED)
ABSOLUTE = replace(RELATIVE, motion="absolute")
PORTRAIT = 20  # what the portrait shows


def test_absolute_motion_follows_the_driving_video(
    fake: FakeTalker, portrait: Path, make_clip: MakeClip, tmp_path: Path
) -> None:
    driving = make_clip([5, 11, 30, 41, 41, 2, 17], rate=Fraction(30000, 1001), sound="aac")
    report = render_video(portrait, driving, tmp_path / "out.mp4", ABSOLUTE)
    assert numbers_of(tmp_path / "out.mp4") == [5, 11, 30, 41, 41, 2, 17]
    assert (report.frames, report.warnings) == (7, [])
    assert str(report).startswith(f"{tmp_path}/out.mp4: 7 frames in ")
    with open_video(tmp_path / "out.mp4") as reader:
        assert (reader.info.width, reader.info.height) == (SIZE, SIZE)
        assert reader.info.average_rate == Fraction(30000, 1001)
        assert reader.info.has_audio
    with av.open(tmp_path / "out.mp4") as container:
        assert container.metadata["comment"] == SYNTHETIC_NOTICE


def test_frames_written_are_told_and_what_that_raises_ends_the_render(
    fake: FakeTalker, portrait: Path, make_clip: MakeClip, tmp_path: Path
) -> None:
    driving, told = make_clip(range(10)), []

    def tell(frames: int, expected: int | None) -> None:
        told.append((frames, expected))
        if len(told) == 5:
            raise InputError("enough")

    render_video(portrait, driving, tmp_path / "out.mp4", RELATIVE, told=tell)
    assert told == [(4, 10), (8, 10), (10, 10)]
    with pytest.raises(InputError, match="enough"):
        render_video(portrait, driving, tmp_path / "ended.mp4", RELATIVE, told=tell)
    assert left_in(tmp_path) == {"portrait.png", "driving.mp4", "out.mp4"}


def test_relative_motion_adds_the_driving_change_to_the_source(
    fake: FakeTalker, portrait: Path, make_clip: MakeClip, tmp_path: Path
) -> None:
    render_video(portrait, make_clip([5, 7, 15, 3]), tmp_path / "out.mp4", RELATIVE)
    assert numbers_of(tmp_path / "out.mp4") == [PORTRAIT, PORTRAIT + 2, PORTRAIT + 10, PORTRAIT - 2]


def test_adapt_scale_multiplies_the_change(
    fake: FakeTalker, portrait: Path, make_clip: MakeClip, tmp_path: Path
) -> None:
    render_video(portrait, make_clip([5, 15]), tmp_path / "out.mp4", replace(RELATIVE, adapt_scale=True))
    # the fake's hull is as much wider as the image is brighter, and no higher
    scale = np.sqrt((1.5 + level(PORTRAIT)) / (1.5 + level(5)))
    assert numbers_of(tmp_path / "out.mp4") == [PORTRAIT, pytest.approx(PORTRAIT + 10 * scale, abs=1)]


@pytest.mark.parametrize("compare", [False, True])
def test_best_frame_measures_from_the_most_alike_frame(
    fake: FakeTalker, portrait: Path, make_clip: MakeClip, tmp_path: Path, compare: bool
) -> None:
    """Frames before and after the best one are rendered, in time order, relative to it."""
    driving = make_clip([5, 12, PORTRAIT + 1, 33, 28])
    render_video(portrait, driving, tmp_path / "out.mp4", replace(RELATIVE, best_frame=True, compare=compare))
    results = [frame.image[:, -SIZE:] for frame in frames_of(tmp_path / "out.mp4")]
    numbers = [round(float(np.median(result)) / 4) for result in results]
    assert numbers == [4, 11, PORTRAIT, 32, 27]


def test_compare_shows_source_driving_and_result(
    fake: FakeTalker, portrait: Path, make_clip: MakeClip, tmp_path: Path
) -> None:
    render_video(portrait, make_clip([5, 7]), tmp_path / "out.mp4", replace(RELATIVE, compare=True))
    last = frames_of(tmp_path / "out.mp4")[-1].image
    assert last.shape == (SIZE, 3 * SIZE, 3)
    panels = [round(float(np.median(last[:, start : start + SIZE])) / 4) for start in (0, SIZE, 2 * SIZE)]
    assert panels == [PORTRAIT, 7, PORTRAIT + 2]


def test_time_stamps_of_a_variable_rate_are_kept(
    fake: FakeTalker, portrait: Path, make_clip: MakeClip, tmp_path: Path
) -> None:
    times = [0, 3, 4, 9, 10, 30]
    driving = make_clip([1, 2, 3, 4, 5, 6], pts=times, time_base=Fraction(1, 90))
    render_video(portrait, driving, tmp_path / "out.mp4", ABSOLUTE)
    written = [frame.pts * frame.time_base for frame in frames_of(tmp_path / "out.mp4")]
    assert written == [Fraction(time, 90) for time in times]


def test_a_motion_file_drives_as_its_video_does(
    fake: FakeTalker, portrait: Path, make_clip: MakeClip, tmp_path: Path
) -> None:
    driving = make_clip([5, 7, 15, 3, 9], pts=[0, 1, 2, 5, 6], rate=25)
    report = write_motion(driving, tmp_path / "motion.safetensors", replace(CENTRED, batch_size=2))
    assert report.frames == 5
    render_video(portrait, driving, tmp_path / "a.mp4", RELATIVE)
    by_motion = replace(RELATIVE, driving=DrivingOptions())
    render_video(portrait, tmp_path / "motion.safetensors", tmp_path / "b.mp4", by_motion)
    video, motion = frames_of(tmp_path / "a.mp4"), frames_of(tmp_path / "b.mp4")
    assert [f.pts * f.time_base for f in video] == [f.pts * f.time_base for f in motion]
    for one, other in zip(video, motion, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


@pytest.mark.parametrize(("batch_size", "batches"), [(1, [1] * 5), (2, [2, 2, 1]), (64, [5])])
def test_the_batch_size_changes_no_frame(
    fake: FakeTalker, portrait: Path, make_clip: MakeClip, tmp_path: Path, batch_size: int, batches: list[int]
) -> None:
    options = replace(RELATIVE, driving=replace(CENTRED, batch_size=batch_size))
    render_video(portrait, make_clip([5, 7, 15, 3, 9]), tmp_path / "out.mp4", options)
    assert numbers_of(tmp_path / "out.mp4") == [20, 22, 30, 18, 24]
    assert fake.batches == batches


@pytest.mark.parametrize("from_motion", [False, True])
def test_max_frames_ends_early(
    fake: FakeTalker, portrait: Path, make_clip: MakeClip, tmp_path: Path, from_motion: bool
) -> None:
    driving, crop = make_clip(list(range(40))), CENTRED
    if from_motion:
        write_motion(driving, tmp_path / "motion.safetensors", CENTRED)
        driving, crop = tmp_path / "motion.safetensors", DrivingOptions()
    options = replace(RELATIVE, driving=replace(crop, max_frames=6))
    assert render_video(portrait, driving, tmp_path / "out.mp4", options).frames == 6
    assert len(frames_of(tmp_path / "out.mp4")) == 6


def test_crops_choose_what_the_model_sees(
    fake: FakeTalker, portrait: Path, make_clip: MakeClip, tmp_path: Path
) -> None:
    """The moving patch of the driving images is 12 levels, that is 3 numbers, brighter than the rest."""
    options = replace(ABSOLUTE, driving=DrivingOptions(crop=CropBox(MARGIN + 8, 8, 16)))
    render_video(portrait, make_clip([30, 0], options={"crf": "8"}), tmp_path / "out.mp4", options)
    assert numbers_of(tmp_path / "out.mp4") == [33, 3]


@pytest.mark.parametrize("best_frame", [False, True])
def test_a_frame_that_cannot_be_decoded_holds_the_last_motion(
    fake: FakeTalker, portrait: Path, make_clip: MakeClip, tmp_path: Path, best_frame: bool
) -> None:
    numbers = [5, 10, 15, 20, 25, 30]
    driving = make_clip(numbers, codec="mjpeg", name="driving.mov", pix_fmt="yuvj420p")
    overwrite_frames(driving, [3], lambda size: b"\0" * size)
    report = render_video(portrait, driving, tmp_path / "out.mp4", replace(RELATIVE, best_frame=best_frame))
    result = numbers_of(tmp_path / "out.mp4")
    assert np.diff(result).tolist() == [5, 5, 0, 10, 5]
    assert (report.frames, report.undecoded) == (6, 1)
    assert len(report.warnings) == 1 and "0.12 s" in report.warnings[0]
    assert str(report).endswith("1 held")


@pytest.mark.parametrize("fault", ["blind_to", "dumb_at"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_what_is_not_finite_is_held_and_reported(
    fake: FakeTalker, portrait: Path, make_clip: MakeClip, tmp_path: Path, fault: str, batch_size: int
) -> None:
    setattr(fake, fault, level(15))
    options = replace(ABSOLUTE, driving=replace(CENTRED, batch_size=batch_size))
    report = render_video(portrait, make_clip([15, 5, 15, 9, 15, 15, 2]), tmp_path / "out.mp4", options)
    assert numbers_of(tmp_path / "out.mp4") == [PORTRAIT, 5, 5, 9, 9, 9, 2]
    assert report.not_finite == 4
    assert "4 frames came out not finite" in report.warnings[0]


def test_motion_that_is_not_finite_never_reaches_a_motion_file(
    fake: FakeTalker, portrait: Path, make_clip: MakeClip, tmp_path: Path
) -> None:
    fake.blind_to = level(15)
    report = write_motion(make_clip([15, 5, 15, 9]), tmp_path / "motion.safetensors", CENTRED)
    options = replace(ABSOLUTE, driving=DrivingOptions())
    render_video(portrait, tmp_path / "motion.safetensors", tmp_path / "out.mp4", options)
    assert numbers_of(tmp_path / "out.mp4") == [5, 5, 5, 9]
    assert report.not_finite == 2


@pytest.mark.parametrize("fault", ["blind_to", "dumb_at"])
def test_a_model_that_makes_nothing_finite_writes_nothing(
    fake: FakeTalker, portrait: Path, make_clip: MakeClip, tmp_path: Path, fault: str
) -> None:
    setattr(fake, fault, level(15))
    driving = make_clip([15, 15])
    before = left_in(tmp_path)
    with pytest.raises(WeightsError, match="finite"):
        render_video(portrait, driving, tmp_path / "out.mp4", ABSOLUTE)
    assert left_in(tmp_path) == before


def test_the_place_of_the_output_is_tried_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, portrait: Path, make_clip: MakeClip, tmp_path: Path
) -> None:
    monkeypatch.setattr("cbtalk.render.video.load", lambda *_, **__: pytest.fail("the model was loaded"))
    driving = make_clip([1, 2])
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "link.mp4").symlink_to(driving)
    (tmp_path / "hard.mp4").hardlink_to(driving)
    roundabout = f"../{tmp_path.name}/driving.mp4"
    outputs = ["missing/out.mp4", "folder.mp4", "driving.mp4", "link.mp4", "hard.mp4", roundabout, "out.avi"]
    before = driving.read_bytes()
    for name in outputs:
        with pytest.raises(OutputError):
            render_video(portrait, driving, tmp_path / name)
    assert driving.read_bytes() == before


def test_an_old_output_stays_where_the_new_one_fails(
    fake: FakeTalker, portrait: Path, make_clip: MakeClip, tmp_path: Path
) -> None:
    (tmp_path / "out.mp4").write_bytes(b"old")
    fake.dumb_at = level(15)
    with pytest.raises(WeightsError):
        render_video(portrait, make_clip([15]), tmp_path / "out.mp4", ABSOLUTE)
    assert (tmp_path / "out.mp4").read_bytes() == b"old"


def test_options_that_contradict_each_other_are_refused(
    fake: FakeTalker, portrait: Path, make_clip: MakeClip, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError):
        RenderOptions(motion="absolute", best_frame=True)
    with pytest.raises(ConfigError):
        DrivingOptions(batch_size=0)
    write_motion(make_clip([1, 2]), tmp_path / "motion.safetensors", CENTRED)
    with pytest.raises(InputError, match="no images"):
        render_video(portrait, tmp_path / "motion.safetensors", tmp_path / "o.mp4", replace(RELATIVE, compare=True))
