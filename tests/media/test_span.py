"""A part of a video is what the whole shows in that time, to the frame, in every kind of file."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from cbtalk.errors import ConfigError, InputError
from cbtalk.media.span import Span, first_needed
from cbtalk.media.video_reader import BadFrame, Frame, open_video
from tests.helpers.videos import number_of, numbered, overwrite_frames, write_clip
from tests.media.test_timeline import record

B_FRAMES = {"bf": "3", "b_strategy": "0", "g": "12", "crf": "10"}
FILES = {
    "closed.mp4": ("libx264", B_FRAMES),
    "open.mp4": ("libx264", {**B_FRAMES, "x264-params": "open-gop=1"}),
    "open.mkv": ("libx264", {**B_FRAMES, "x264-params": "open-gop=1"}),
    "b.avi": ("libx264", B_FRAMES),
    "b.ts": ("libx264", {**B_FRAMES, "x264-params": "open-gop=1"}),
    "b.mpg": ("mpeg2video", {"bf": "2", "g": "12", "b": "2M"}),
    "four.mov": ("mpeg4", {"bf": "2", "g": "12", "b": "2M"}),
    "one.mp4": ("libx264", {"g": "250"}),
    "vp9.webm": ("libvpx-vp9", {"g": "12", "b": "1M", "cpu-used": "8"}),
    "a.gif": ("gif", {}),
    "all.avi": ("mjpeg", {}),
}


def frames(path: Path, start: float = 0, duration: float | None = None) -> list[Frame]:
    with open_video(path, Span.of(start, duration)) as reader:
        found = list(reader)
    return [frame for frame in found if isinstance(frame, Frame)]


def time(frame: Frame) -> float:
    return float(frame.pts * frame.time_base)


def made(folder: Path, name: str) -> Path:
    codec, options = FILES[name]
    pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
    return write_clip(folder / name, [numbered(i) for i in range(50)], codec=codec, options=options, pix_fmt=pix_fmt)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_part_equals_that_part_of_the_whole(tmp_path: Path, name: str) -> None:
    path = made(tmp_path, name)
    whole = frames(path)
    tick = max(0.0011, float(whole[0].time_base))
    for first, last in ((1, 4), (11, 13), (12, 30), (13, 14), (23, 49), (26, 27), (49, 49)):
        start, end = time(whole[first]), time(whole[last]) + 0.02
        part = frames(path, round(start, 4), round(end - start, 4))
        for found, expected in zip(part, whole[first : last + 1], strict=True):
            np.testing.assert_array_equal(found.image, expected.image)
            assert time(found) == pytest.approx(time(expected) - start, abs=tick)
        assert part[0].pts == 0
        assert time(part[-1]) + float(part[-1].duration * part[-1].time_base) == pytest.approx(end - start, abs=tick)
    with pytest.raises(InputError, match="cannot start at 30"):
        frames(path, 30)


@pytest.mark.parametrize("suffix", [".ts", ".mkv", ".webm", ".flv", ".mpg"])
def test_a_clock_that_starts_late(tmp_path: Path, suffix: str) -> None:
    path = record(tmp_path / f"a{suffix}", start=3600)
    whole = frames(path)
    for first in (10, 25, 30):
        part = frames(path, round(time(whole[first]), 4))
        assert len(part) == len(whole) - first and part[0].pts == 0
        np.testing.assert_array_equal(part[0].image, whole[first].image)


@pytest.mark.parametrize("name", ["closed.mp4", "open.mkv"])
def test_it_is_decoded_from_a_key_frame_before_it(tmp_path: Path, name: str) -> None:
    path = made(tmp_path, name)
    with av.open(path) as container:
        keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
    assert keys.count(True) > 2
    needed = first_needed(path, Fraction(38, 25))
    assert keys[needed] and 12 <= needed <= 38


def test_the_frame_that_is_shown_at_the_start_comes_first(tmp_path: Path) -> None:
    """Images that stay: the part begins and ends within them."""
    pts = [0, 10, 50, 60, 100]
    path = write_clip(tmp_path / "a.mkv", [numbered(i) for i in range(5)], pts=pts, time_base=Fraction(1, 100))
    part = frames(path, 0.3, 0.4)
    assert [number_of(frame.image) for frame in part] == [1, 2, 3]
    assert [time(frame) for frame in part] == pytest.approx([0, 0.2, 0.3])
    assert [float(frame.duration * frame.time_base) for frame in part][-1] == pytest.approx(0.1)


def test_a_coarse_clock_shows_no_two_frames_at_once(tmp_path: Path) -> None:
    path = made(tmp_path, "all.avi")  # ticks of a frame
    for start in (0.05, 0.06, 0.07):
        part = frames(path, start, 0.2)
        assert [frame.pts for frame in part] == list(range(len(part))) and number_of(part[0].image) == 1


def test_parts_join(tmp_path: Path) -> None:
    path = made(tmp_path, "closed.mp4")
    shown = [number_of(frame.image) for start in range(4) for frame in frames(path, start * 0.48, 0.48)]
    assert shown == list(range(48))


def test_frames_lost_in_the_part_are_told_and_no_others(tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / "a.mov", [numbered(i) for i in range(20)], codec="mjpeg", pix_fmt="yuvj420p", options={"q": "2"}
    )
    overwrite_frames(path, [2, 8, 15], lambda size: b"\0" * size)
    with open_video(path, Span.of(0.2, 0.32)) as reader:
        found = list(reader)
    assert [frame.pts * reader.info.time_base * 25 for frame in found if frame.pts is not None] == list(range(8))
    assert [place for place, frame in enumerate(found) if isinstance(frame, BadFrame)] == [3]
    assert [number_of(frame.image) for frame in frames(path, 0.32, 0.08)] == [7, 9]


def test_what_is_known_of_a_part(tmp_path: Path) -> None:
    path = made(tmp_path, "closed.mp4")
    with open_video(path, Span.of(0.4, 1)) as reader:
        assert (reader.info.frames, reader.info.duration) == (25, 1.0)
    with open_video(path, Span.of(1.6, 10)) as reader:
        assert reader.info.frames == 10 and reader.info.duration == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("start", "duration"), [(-1, None), (float("nan"), None), (float("inf"), 1), (0, 0), (0, -2), (0, float("inf"))]
)
def test_times_that_make_no_sense_are_refused(start: float, duration: float | None) -> None:
    with pytest.raises(ConfigError):
        Span.of(start, duration)
