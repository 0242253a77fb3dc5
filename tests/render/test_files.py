"""A driving video's length and faults, and places that cannot be written."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbtalk.errors import OutputError
from cbtalk.media.video_reader import Frame, open_video
from cbtalk.media.video_writer import VideoWriter
from cbtalk.render import DrivingOptions, RenderOptions, render_video, video, write_motion
from tests.helpers.videos import numbered, write_clip
from tests.media.test_encoder import no_nvenc
from tests.render.conftest import frames_of, left_in
from tests.render.fake_talker import FakeTalker

CENTRE = RenderOptions(motion="absolute", crop="centre", driving=DrivingOptions(crop="centre", batch_size=2))
DELAYS = [200, 200, 200, 100, 3000]  # milliseconds


def animation(path: Path) -> Path:
    images = [Image.fromarray(numbered(10 * i)) for i in range(5)]
    kind = "GIF" if path.suffix == ".gif" else "PNG"
    images[0].save(path, kind, save_all=True, append_images=images[1:], duration=DELAYS)
    return path


def end_of(path: Path) -> Fraction:
    last = frames_of(path)[-1]
    return (last.pts + last.duration) * last.time_base


@pytest.mark.parametrize("best_frame", [False, True])
@pytest.mark.parametrize("suffix", [".gif", ".apng", ".mp4", ".mkv"])
def test_the_last_image_stays(fake: FakeTalker, portrait: Path, tmp_path: Path, suffix: str, best_frame: bool) -> None:
    driving = tmp_path / f"a{suffix}"
    if suffix in (".mp4", ".mkv"):
        render_video(portrait, animation(tmp_path / "a.gif"), driving, CENTRE)
    else:
        animation(driving)
    options = CENTRE
    if best_frame:
        options = RenderOptions(best_frame=True, crop="centre", driving=CENTRE.driving)
    report = render_video(portrait, driving, tmp_path / "out.mp4", options)
    assert report.frames == 5 and end_of(tmp_path / "out.mp4") == pytest.approx(3.7, abs=0.002)
    write_motion(driving, tmp_path / "m.safetensors", CENTRE.driving)
    still = RenderOptions(motion="absolute", crop="centre")
    render_video(portrait, tmp_path / "m.safetensors", tmp_path / "motion.mp4", still)
    assert end_of(tmp_path / "motion.mp4") == pytest.approx(3.7, abs=0.002)
    few = RenderOptions(motion="absolute", crop="centre", driving=DrivingOptions(max_frames=3))
    render_video(portrait, tmp_path / "m.safetensors", tmp_path / "few.mp4", few)
    assert end_of(tmp_path / "few.mp4") < 2


def test_an_image_that_stays_to_the_end_of_the_sound(fake: FakeTalker, portrait: Path, tmp_path: Path) -> None:
    render_video(portrait, staying_with_sound(tmp_path), tmp_path / "out.mp4", CENTRE)
    assert end_of(tmp_path / "out.mp4") == pytest.approx(3.7, abs=0.002)
    with open_video(tmp_path / "out.mp4") as reader:
        assert reader.info.has_audio


def staying_with_sound(folder: Path) -> Path:
    """A video whose last image stays, with sound beside it."""
    sound = write_clip(folder / "sound.mp4", [numbered(0)] * 100, sound="aac")
    path = folder / "staying.mp4"
    with VideoWriter(
        path, width=64, height=48, rate=Fraction(25), time_base=Fraction(1, 100), audio_from=sound
    ) as writer:
        for pts, duration in ((0, 4), (4, 4), (8, 362)):
            writer.write(numbered(pts), pts, duration)
    return path


def test_a_driving_video_that_is_cut_off_is_rendered_with_a_warning(
    fake: FakeTalker, portrait: Path, tmp_path: Path
) -> None:
    images = [np.random.default_rng(i).integers(0, 256, (48, 64, 3), dtype=np.uint8) for i in range(40)]
    driving = write_clip(tmp_path / "a.mkv", images)
    driving.write_bytes(driving.read_bytes()[: driving.stat().st_size // 2])
    report = render_video(portrait, driving, tmp_path / "out.mp4", CENTRE)
    assert 10 < report.frames < 40 and "cut off" in report.warnings[0]
    with open_video(tmp_path / "out.mp4") as reader:
        assert reader.info.warnings == () and all(isinstance(frame, Frame) for frame in reader)
    assert "cut off" in write_motion(driving, tmp_path / "m.safetensors", CENTRE.driving).warnings[0]


def test_places_without_a_file_of_that_name_are_refused(
    fake: FakeTalker, portrait: Path, make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    driving = make_clip([1, 2])
    (tmp_path / "loop.mp4").symlink_to("pool.mp4")
    (tmp_path / "pool.mp4").symlink_to("loop.mp4")
    for name in ("n" * 252 + ".mp4", "loop.mp4"):
        with pytest.raises(OutputError):
            render_video(portrait, driving, tmp_path / name, CENTRE)


@no_nvenc
def test_an_encoder_that_cannot_be_opened_ends_it_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, portrait: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(video, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    driving = write_clip(tmp_path / "driving.mp4", [numbered(i) for i in range(3)])
    before = left_in(tmp_path)
    with pytest.raises(OutputError, match="h264_nvenc"):
        render_video(portrait, driving, tmp_path / "out.mp4", replace(CENTRE, encoder="h264_nvenc"))
    assert left_in(tmp_path) == before
