"""The sound of a part of a file stays in step with its images."""

from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream

from cbtalk.errors import InputError
from cbtalk.media.audio_track import check_sound
from cbtalk.media.video_writer import VideoWriter
from tests.helpers.videos import numbered, tone_frames, write_clip, write_sound_only

HOLE = (1.5, 2.0)  # seconds in which the tone is off
STARTS = [Fraction(0), Fraction(7, 25), Fraction(1009, 1000)]


def quiet_in(path: Path) -> tuple[float, float]:
    """Start and end of the pause in the sound of a file, in seconds as a player counts them."""
    with av.open(path) as container:
        resampler = av.AudioResampler(format="fltp")
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    loud = [np.flatnonzero(np.abs(f.to_ndarray()[0]) > 0.05) / f.sample_rate + (f.time or 0) for f in frames]
    times = np.concatenate(loud)
    pause = int(np.diff(times).argmax())
    return float(times[pause]), float(times[pause + 1])


def part_of(source: Path, output: Path, start: Fraction) -> str | None:
    with VideoWriter(
        output, width=64, height=48, rate=Fraction(25), time_base=Fraction(1, 25), audio_from=source, audio_start=start
    ) as writer:
        for number in range(60 - round(start * 25)):
            writer.write(numbered(number), number)
        how = writer.audio
    return how


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(
    ("source", "codec", "output", "how"),
    [
        ("a.mp4", "aac", "o.mp4", "copied"),
        ("a.mp4", "aac", "o.mkv", "copied"),
        ("a.mkv", "libopus", "o.mp4", "copied"),
        ("a.mkv", "flac", "o.mkv", "copied"),
        ("a.ts", "mp2", "o.mp4", "re-encoded to AAC"),
        ("a.ts", "mp2", "o.mkv", "copied"),
        ("a.mkv", "pcm_f32le", "o.mkv", "re-encoded to AAC"),
    ],
)
def test_it_starts_where_the_part_starts(
    tmp_path: Path, source: str, codec: str, output: str, how: str, start: Fraction
) -> None:
    path = write_clip(tmp_path / source, [numbered(i) for i in range(60)], sound=codec, sound_hole=HOLE)
    whole = quiet_in(path) if path.suffix != ".ts" else HOLE
    assert part_of(path, tmp_path / output, start) == how
    assert quiet_in(tmp_path / output) == pytest.approx([time - float(start) for time in whole], abs=0.04)  # a frame
    with av.open(tmp_path / output) as container:
        first = next(container.decode(audio=0))
        assert -0.03 <= (first.time or 0) <= 0.1


def test_sound_files_without_images(tmp_path: Path) -> None:
    for name, codec in (("a.wav", "pcm_s16le"), ("a.mp3", "libmp3lame"), ("a.flac", "flac"), ("a.m4a", "aac")):
        path = tmp_path / name
        with av.open(path, "w", format="mp4" if name == "a.m4a" else None) as container:
            stream = cast(AudioStream, container.add_stream(codec, rate=48000))
            for frame in tone_frames(Fraction(0), 3):
                if not HOLE[0] <= (frame.time or 0) < HOLE[1]:
                    container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        check_sound(path)
        assert part_of(path, tmp_path / "o.mp4", Fraction(0)) is not None


def test_files_without_sound_are_refused(tmp_path: Path) -> None:
    check_sound(write_sound_only(tmp_path / "sound.mp4"))
    (tmp_path / "text.wav").write_text("no sound")
    for path in (write_clip(tmp_path / "a.mp4", [numbered(1)]), tmp_path / "text.wav", tmp_path / "absent.mp3"):
        with pytest.raises(InputError, match=path.name):
            check_sound(path)
