"""Relative motion starts anew where another scene begins, whatever way the driving frames come."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cbtalk.render import DrivingOptions, RenderOptions, render_video, write_motion
from tests.helpers.videos import overwrite_frames
from tests.render.conftest import frames_of, numbers_of
from tests.render.fake_talker import SIZE, FakeTalker, level
from tests.render.test_video import CENTRED, PORTRAIT, RELATIVE

MakeClip = Callable[..., Path]
NUMBERS, CUTS = [5, 7, 33, 31, 36, 12, 16], [2, 5]
CHANGES = [0, 2, 0, -2, 3, 0, 4]


def rendered_from(path: Path, portrait: Path, options: RenderOptions) -> list[int]:
    output = path.with_name("out.mp4")
    render_video(portrait, path, output, options)
    return numbers_of(output)


@pytest.mark.parametrize("batch_size", range(1, 8))
def test_motion_starts_anew_at_each_cut_wherever_batches_end(
    fake: FakeTalker, portrait: Path, make_clip: MakeClip, tmp_path: Path, batch_size: int
) -> None:
    driving = replace(CENTRED, batch_size=batch_size)
    clip = make_clip(NUMBERS, cuts=CUTS)
    assert [n - PORTRAIT for n in rendered_from(clip, portrait, replace(RELATIVE, driving=driving))] == CHANGES
    write_motion(clip, tmp_path / "m.safetensors", driving)
    options = replace(RELATIVE, driving=DrivingOptions(batch_size=batch_size))
    assert [n - PORTRAIT for n in rendered_from(tmp_path / "m.safetensors", portrait, options)] == CHANGES


def test_absolute_motion_knows_no_scenes(fake: FakeTalker, portrait: Path, make_clip: MakeClip) -> None:
    assert rendered_from(make_clip(NUMBERS, cuts=CUTS), portrait, replace(RELATIVE, motion="absolute")) == NUMBERS


@pytest.mark.parametrize(("from_motion", "compare"), [(False, False), (False, True), (True, False)])
def test_each_scene_has_a_best_frame(
    fake: FakeTalker, portrait: Path, make_clip: MakeClip, tmp_path: Path, from_motion: bool, compare: bool
) -> None:
    clip, options = make_clip([5, PORTRAIT, 33, 30, 36, 2], cuts=[2, 5]), replace(RELATIVE, best_frame=True)
    if from_motion:
        write_motion(clip, tmp_path / "m.safetensors", CENTRED)
        clip, options = tmp_path / "m.safetensors", replace(options, driving=DrivingOptions())
    render_video(portrait, clip, tmp_path / "out.mp4", replace(options, compare=compare))
    results = [frame.image[:, -SIZE:] for frame in frames_of(tmp_path / "out.mp4")]
    assert [round(float(np.median(result)) / 4) - PORTRAIT for result in results] == [-15, 0, 3, 0, 6, 0]


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_a_scene_starts_from_its_first_finite_frame(
    fake: FakeTalker, portrait: Path, make_clip: MakeClip, tmp_path: Path, batch_size: int
) -> None:
    """The frame before it repeats the scene before, in a motion file too."""
    fake.blind_to = level(15)
    clip, driving = make_clip([5, 9, 15, 33, 34], cuts=[2]), replace(CENTRED, batch_size=batch_size)
    expected = [PORTRAIT + change for change in (0, 4, 4, 0, 1)]
    assert rendered_from(clip, portrait, replace(RELATIVE, driving=driving)) == expected
    write_motion(clip, tmp_path / "m.safetensors", driving)
    options = replace(RELATIVE, driving=DrivingOptions())
    assert rendered_from(tmp_path / "m.safetensors", portrait, options) == expected


def test_a_frame_that_cannot_be_decoded_belongs_to_the_scene_before(
    fake: FakeTalker, portrait: Path, make_clip: MakeClip
) -> None:
    clip = make_clip([5, 9, 30, 33, 34], cuts=[2], codec="mjpeg", name="driving.mov", pix_fmt="yuvj420p")
    overwrite_frames(clip, [2], lambda size: b"\0" * size)
    assert rendered_from(clip, portrait, RELATIVE) == [PORTRAIT + change for change in (0, 4, 4, 0, 1)]


def test_the_report_tells_the_first_cuts(fake: FakeTalker, portrait: Path, make_clip: MakeClip, tmp_path: Path) -> None:
    report = render_video(portrait, make_clip(NUMBERS, cuts=CUTS), tmp_path / "out.mp4", RELATIVE)
    line = "2 scene cuts in the driving video, at 0.08, 0.20 s"
    assert report.lines == [line, str(report)]
    written = write_motion(make_clip(NUMBERS, cuts=CUTS), tmp_path / "m.safetensors", CENTRED)
    assert written.lines[0] == line
    options = replace(RELATIVE, driving=DrivingOptions(max_frames=4), best_frame=True)
    report = render_video(portrait, tmp_path / "m.safetensors", tmp_path / "out.mp4", options)
    assert report.lines[0] == "1 scene cut in the driving video, at 0.08 s"
    report = render_video(portrait, make_clip([5, 6]), tmp_path / "out.mp4", RELATIVE)
    assert report.lines == [str(report)]
    report = render_video(portrait, make_clip([5] * 40, cuts=range(4, 40, 4)), tmp_path / "out.mp4", RELATIVE)
    assert report.lines[0].endswith("9 scene cuts in the driving video, at 0.16, 0.32, 0.48, 0.64, 0.80, ... s")
