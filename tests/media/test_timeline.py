"""Clocks that start late, jump, or are set anew, in every container that recorders and capture tools write."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from cbtalk.media.video_reader import Frame, open_video
from cbtalk.media.video_writer import VideoWriter
from tests.helpers.tiers import slow
from tests.helpers.videos import AUDIO_RATE, number_of, numbered, tone_frames, write_clip

FRAMES = 50
KINDS = {  # suffix: video codec, audio codec
    ".ts": ("libx264", "aac"),
    ".mpg": ("mpeg2video", "mp2"),
    ".vob": ("mpeg2video", "mp2"),
    ".mkv": ("libx264", "aac"),
    ".webm": ("libvpx", "libopus"),
    ".flv": ("flv", "aac"),
    ".asf": ("wmv2", "mp2"),
}


def record(path: Path, *, start: float = 0, first: int = 0) -> Path:
    """Two seconds of images numbered from `first` on, and a tone with a hole in it, on a clock from `start`."""
    video, audio = KINDS[path.suffix]
    images = [numbered((first + i) % 60) for i in range(FRAMES)]
    pts = [round(start * 25) + i for i in range(FRAMES)]
    options = {"libx264": {"crf": "10", "g": "25"}, "libvpx": {"b": "500k"}}.get(video, {})
    return write_clip(
        path,
        images,
        pts=pts,
        codec=video,
        options=options,
        sound=audio,
        sound_start=Fraction(start),
        sound_hole=(start + 0.5, start + 1),
    )


def check_even(path: Path, frames: int) -> list[Frame]:
    """The video has so many different frames, from about 0 on, one after another at 25 a second."""
    with open_video(path) as reader:
        found = [frame for frame in reader if isinstance(frame, Frame)]
    times = np.array([float(frame.pts * frame.time_base) for frame in found])
    assert len(found) == frames and 0 <= times[0] < 0.1
    # FFmpeg's demuxer of MPEG-PS gives some frames the time of their neighbour, and its muxer of fragments delays one.
    coarse = path.suffix in (".mpg", ".vob", ".mp4")
    np.testing.assert_allclose(np.diff(times), 0.04, atol=0.041 if coarse else 0.012)
    np.testing.assert_allclose(times, times[0] + 0.04 * np.arange(frames), atol=0.041 if coarse else 0.012)
    return found


def rendered(path: Path) -> Path:
    """The frames and the sound of a video written anew."""
    with open_video(path) as reader:
        info = reader.info
        output = path.with_name("out.mp4")
        with VideoWriter(
            output, width=64, height=48, rate=info.average_rate, time_base=info.time_base, audio_from=path
        ) as writer:
            for frame in reader:
                assert isinstance(frame, Frame)
                writer.write(frame.image, frame.pts, frame.duration)
    return output


def loudness(path: Path, start: float, end: float) -> float:
    """Mean level of the sound between two times, 0 where there is none."""
    with av.open(path) as container:
        frames = list(container.decode(audio=0))
    heard = [np.abs(frame.to_ndarray()).mean() for frame in frames if start <= (frame.time or 0) < end]
    return float(np.mean(heard)) if heard else 0.0


def check_holes(path: Path, *holes: float) -> None:
    """The tone is off for half a second from each of these times on, and on before and after it."""
    output = rendered(path)
    for start in holes:
        loud = loudness(output, start - 0.3, start - 0.08), loudness(output, start + 0.6, start + 0.8)
        assert loudness(output, start + 0.12, start + 0.42) < 0.05 * min(loud)


@pytest.mark.parametrize("start", [3600, *slow(5, 40_000)])
@pytest.mark.parametrize("suffix", sorted(KINDS))
def test_a_clock_that_starts_late(tmp_path: Path, suffix: str, start: int) -> None:
    path = record(tmp_path / f"a{suffix}", start=start)
    found = check_even(path, FRAMES)
    np.testing.assert_allclose([number_of(frame.image) for frame in found], range(FRAMES), atol=1)
    check_holes(path, 0.5)


def move_fragments(path: Path, seconds: int) -> None:
    """Set the clock of a fragmented MP4 forward, of which every `tfdt` box tells the time in ticks of its track."""
    with av.open(path) as container:
        bases = [stream.time_base for stream in container.streams]
    data, place, track = bytearray(path.read_bytes()), 0, 0
    while (place := data.find(b"tf", place)) >= 0:
        if data[place : place + 4] == b"tfhd":
            track = int.from_bytes(data[place + 8 : place + 12], "big") - 1
        if data[place : place + 4] == b"tfdt":
            assert data[place + 4] == 1  # 64 bits
            ticks = int.from_bytes(data[place + 8 : place + 16], "big")
            ticks += round(seconds / (bases[track] or 1))
            data[place + 8 : place + 16] = ticks.to_bytes(8, "big")
        place += 2
    path.write_bytes(data)


@pytest.mark.parametrize("seconds", [3600, 1_700_000_000])
def test_a_fragmented_mp4_on_the_clock_of_its_stream(tmp_path: Path, seconds: int) -> None:
    path = tmp_path / "a.mp4"
    with av.open(path, "w", container_options={"movflags": "frag_keyframe+empty_moov+default_base_moof"}) as container:
        video = container.add_stream("libx264", rate=25, width=64, height=48, pix_fmt="yuv420p", options={"bf": "0"})
        audio = container.add_stream("aac", rate=AUDIO_RATE)
        for index in range(FRAMES):
            container.mux(video.encode(av.VideoFrame.from_ndarray(numbered(index))))
        for frame in tone_frames(Fraction(0), 2):
            if not 0.5 <= (frame.time or 0) < 1:
                container.mux(audio.encode(frame))
        for stream in (video, audio):
            container.mux(stream.encode(None))
    move_fragments(path, seconds)
    check_even(path, FRAMES)
    check_holes(path, 0.5)


Join = Callable[[Path, Path], bytes]


@pytest.mark.parametrize("starts", [(0, 1), (50_000, 0), *slow(((0, 0),), ((10, 3),), ((0, 92),), ((0, 50_000),))])
@pytest.mark.parametrize("suffix", [".ts", ".mpg", ".vob"])
def test_recordings_joined(tmp_path: Path, suffix: str, starts: tuple[int, int]) -> None:
    """The clock of the second restarts, overlaps the first one's, or leaps ahead or back."""
    parts = [record(tmp_path / f"{i}{suffix}", start=start, first=10 * i) for i, start in enumerate(starts)]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    found = check_even(path, 2 * FRAMES)
    expected = [*range(FRAMES), *range(10, 10 + FRAMES)]
    np.testing.assert_allclose([number_of(frame.image) for frame in found], expected, atol=1)
    check_holes(path, 0.5, 2.5)


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_browsers_recordings_joined(tmp_path: Path, suffix: str) -> None:
    part = record(tmp_path / f"part{suffix}")
    path = tmp_path / f"a{suffix}"
    path.write_bytes(2 * part.read_bytes())
    check_even(path, 2 * FRAMES)
    check_holes(path, 0.5, 2.5)


@pytest.mark.parametrize("suffix", [".mkv", ".ts"])
def test_an_image_that_stays_while_the_sound_goes_on_is_no_leap(tmp_path: Path, suffix: str) -> None:
    path = write_clip(
        tmp_path / f"a{suffix}",
        [numbered(i) for i in range(6)],
        pts=[0, 1, 2, 402, 403, 404],
        sound="aac",
        options={"bf": "0"},
    )
    with open_video(path) as reader:
        times = [float(frame.pts * frame.time_base) for frame in reader if isinstance(frame, Frame)]
    np.testing.assert_allclose(np.diff(times), [0.04, 0.04, 16, 0.04, 0.04], atol=0.01)


def test_sound_of_one_recording_only(tmp_path: Path) -> None:
    """The second of two joined recordings has no sound: its images follow all the same."""
    first = record(tmp_path / "a.ts")
    second = write_clip(tmp_path / "b.ts", [numbered(i) for i in range(FRAMES)], options={"g": "25"})
    path = tmp_path / "c.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    check_even(path, 2 * FRAMES)
    rendered(path)
