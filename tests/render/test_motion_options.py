"""Renders whose motion is made stronger, smoother, shorter or endless, and their sound."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cbtalk.errors import ConfigError, InputError
from cbtalk.media.video_reader import open_video
from cbtalk.render import DrivingOptions, RenderOptions, render_video, write_motion
from tests.helpers.videos import numbered, write_clip, write_sound_only
from tests.media.test_sound_of_a_part import quiet_in
from tests.render.conftest import frames_of, numbers_of
from tests.render.fake_talker import FakeTalker

MakeClip = Callable[..., Path]
CENTRED = DrivingOptions(crop="centre")
RELATIVE = RenderOptions(crop="centre", driving=CENTRED)
PORTRAIT = 20  # what the portrait shows


def render(driving: Path, portrait: Path, options: RenderOptions = RELATIVE, **of_driving: Any) -> Path:
    output = driving.with_name("out.mp4")
    crop = DrivingOptions() if driving.suffix == ".safetensors" else CENTRED
    render_video(portrait, driving, output, replace(options, driving=replace(crop, **of_driving)))
    return output


def has_sound(path: Path) -> bool:
    with open_video(path) as reader:
        return reader.info.has_audio


@pytest.mark.parametrize(("strength", "expected"), [(0, [0, 0, 0]), (0.5, [0, 1, 5]), (1, [0, 2, 10]), (2, [0, 4, 20])])
def test_strength_multiplies_the_motion(
    fake: FakeTalker, portrait: Path, make_clip: MakeClip, strength: float, expected: list[int]
) -> None:
    output = render(make_clip([5, 7, 15]), portrait, replace(RELATIVE, strength=strength))
    assert numbers_of(output) == [PORTRAIT + number for number in expected]


def test_smoothing_keeps_an_even_motion_and_stills_a_shaking_one(
    fake: FakeTalker, portrait: Path, make_clip: MakeClip, tmp_path: Path
) -> None:
    absolute = replace(RELATIVE, motion="absolute")
    even = list(range(4, 40, 2))
    assert numbers_of(render(make_clip(even), portrait, absolute, smooth=0.1)) == even
    shaking = make_clip([20, 28] * 10)
    found = numbers_of(render(shaking, portrait, absolute, smooth=0.1))
    assert set(found[2:-2]) == {24}
    write_motion(shaking, tmp_path / "motion.safetensors", replace(CENTRED, smooth=0.1))
    assert numbers_of(render(tmp_path / "motion.safetensors", portrait, absolute)) == found
    write_motion(shaking, tmp_path / "motion.safetensors", CENTRED)
    assert numbers_of(render(tmp_path / "motion.safetensors", portrait, absolute, smooth=0.1)) == found


def test_a_smoothed_motion_can_be_compared(fake: FakeTalker, portrait: Path, make_clip: MakeClip) -> None:
    output = render(make_clip([20, 28] * 4), portrait, replace(RELATIVE, compare=True), smooth=0.1)
    assert frames_of(output)[3].image.shape[1] == 3 * 48


def test_ping_pong(fake: FakeTalker, portrait: Path, make_clip: MakeClip) -> None:
    driving = make_clip([5, 7, 15, 20], sound="aac")
    output = render(driving, portrait, replace(RELATIVE, loop="ping-pong"))
    assert numbers_of(output) == [20, 22, 30, 35, 30, 22] and not has_sound(output)
    assert [frame.pts * frame.time_base for frame in frames_of(output)] == [Fraction(n, 25) for n in range(6)]


@pytest.mark.parametrize("best_frame", [False, True])
def test_a_cross_faded_loop_is_measured_from_the_same_frame(
    fake: FakeTalker, portrait: Path, make_clip: MakeClip, best_frame: bool
) -> None:
    """The first frame of the driving video is the portrait's pose, though the period begins behind it."""
    driving = make_clip([10 + abs(i - 12) for i in range(30)])
    options = replace(RELATIVE, loop="cross-fade", fade=0.2, best_frame=best_frame)
    found = numbers_of(render(driving, portrait, options))
    initial = 20 if best_frame else 22
    expected = [PORTRAIT + 10 + abs(i - 12) - initial for i in range(5, 25)]
    np.testing.assert_allclose(found[:20], expected, atol=1)
    assert len(found) == 25
    assert abs(found[-1] - found[0]) <= np.abs(np.diff(found)).max()


def sounding(folder: Path) -> Path:
    """Two seconds with B-frames, whose clock starts late, and a pause in the sound from 1.2 to 1.6 s."""
    return write_clip(
        folder / "driving.ts",
        [numbered(i) for i in range(50)],
        pts=[3600 * 25 + i for i in range(50)],
        options={"bf": "3", "b_strategy": "0", "g": "12", "crf": "10"},
        sound="aac",
        sound_start=Fraction(3600),
        sound_hole=(3601.2, 3601.6),
    )


def test_a_part_of_the_driving_video(fake: FakeTalker, portrait: Path, tmp_path: Path) -> None:
    """Exact to the frame, and the pause is where the images have it."""
    absolute = replace(RELATIVE, motion="absolute")
    driving = sounding(tmp_path)
    early = float(frames_of(driving)[0].pts * Fraction(1, 90000))  # the sound begins so much before the images
    part: dict[str, Any] = {"start": 0.56 + early, "duration": 1.2}
    pause = pytest.approx((1.2 - 0.56, 1.6 - 0.56), abs=0.04)
    output = render(driving, portrait, absolute, **part)
    assert numbers_of(output) == list(range(14, 44))
    times = [float(frame.pts * frame.time_base) for frame in frames_of(output)]
    np.testing.assert_allclose(times, np.arange(30) / 25, atol=0.001)
    assert quiet_in(output) == pause
    report = write_motion(driving, tmp_path / "part.safetensors", replace(CENTRED, **part))
    assert report.frames == 30
    assert numbers_of(render(tmp_path / "part.safetensors", portrait, absolute)) == list(range(14, 44))
    write_motion(driving, tmp_path / "whole.safetensors", CENTRED)
    motion = tmp_path / "whole.safetensors"
    output = render(motion, portrait, replace(absolute, audio=driving), **part)
    assert numbers_of(output) == list(range(14, 44))
    assert quiet_in(output) == pause
    assert numbers_of(render(driving, portrait, absolute, start=1 + early, max_frames=3)) == [25, 26, 27]
    for path in (driving, motion):
        with pytest.raises(InputError, match="cannot start at 9"):
            render(path, portrait, start=9)


def test_relative_motion_of_a_part_begins_with_it(fake: FakeTalker, portrait: Path, make_clip: MakeClip) -> None:
    assert numbers_of(render(make_clip([5, 7, 15, 16]), portrait, start=0.04)) == [20, 28, 29]


def test_sound_from_elsewhere_or_nowhere(fake: FakeTalker, portrait: Path, make_clip: MakeClip, tmp_path: Path) -> None:
    driving = make_clip([5, 7, 15], sound="aac")
    silent = make_clip([5, 7, 15], name="silent.mp4")
    sound = write_sound_only(tmp_path / "sound.m4a")
    assert has_sound(render(driving, portrait))
    assert not has_sound(render(driving, portrait, replace(RELATIVE, audio="none")))
    assert has_sound(render(silent, portrait, replace(RELATIVE, audio=sound)))
    assert has_sound(render(silent, portrait, replace(RELATIVE, audio=sound, loop="ping-pong")))
    with pytest.raises(InputError, match=r"silent\.mp4: holds no sound"):
        render(driving, portrait, replace(RELATIVE, audio=silent))


@pytest.mark.parametrize(
    "options",
    [
        {"strength": -0.1},
        {"strength": 2.1},
        {"strength": float("nan")},
        {"motion": "absolute", "strength": 0.5},
        {"loop": "cross-fade", "fade": 0},
        {"loop": "ping-pong", "compare": True},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        RenderOptions(**options)


@pytest.mark.parametrize(
    "options", [{"smooth": -0.1}, {"smooth": 2}, {"smooth": float("nan")}, {"start": -1}, {"duration": 0}]
)
def test_driving_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        DrivingOptions(**options)  # type: ignore[arg-type]
