import errno
import itertools
import os
import resource
import signal
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cbtalk.atomic import SUFFIX
from cbtalk.errors import OutputError, SystemFailure
from cbtalk.media.audio_track import AudioTrack
from cbtalk.media.video_reader import Frame, open_video
from cbtalk.media.video_writer import VideoWriter
from tests.helpers.tiers import slow
from tests.helpers.videos import flat, is_box_before, number_of, numbered, quadrants, write_clip
from tests.media.child import killed

RATE = Fraction(25)
NTSC = Fraction(30000, 1001)


def write(
    path: Path,
    images: list[NDArray[np.uint8]],
    *,
    pts: list[int] | None = None,
    rate: Fraction = RATE,
    time_base: Fraction | None = None,
    audio_from: Path | None = None,
) -> VideoWriter:
    height, width = images[0].shape[:2]
    writer = VideoWriter(
        path, width=width, height=height, rate=rate, time_base=time_base or 1 / rate, audio_from=audio_from, crf=4
    )
    with writer:
        for image, time in zip(images, pts or range(len(images)), strict=False):
            writer.write(image, time)
    return writer


def read(path: Path) -> list[Frame]:
    with open_video(path) as reader:
        return [frame for frame in reader if isinstance(frame, Frame)]


def times(path: Path) -> list[Fraction]:
    return [frame.pts * frame.time_base for frame in read(path)]


def stored_times(path: Path) -> list[Fraction]:
    """As the file has them, which need not start at 0."""
    with av.open(path) as container:
        return [(frame.pts or 0) * (frame.time_base or Fraction(1)) for frame in container.decode(video=0)]


def sound_span(path: Path) -> tuple[float, float]:
    """Start and end of the decoded sound, in seconds; a lead-in that players skip does not count."""
    with av.open(path) as container:
        frames = list(container.decode(audio=0))
    return float(frames[0].time or 0), float(frames[-1].time or 0) + frames[-1].samples / frames[-1].sample_rate


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".MP4"])
def test_the_file_is_h264_of_the_kind_that_plays_everywhere(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write(path, [numbered(i) for i in range(30)], rate=NTSC)
    with av.open(path) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert stream.average_rate == NTSC or suffix == ".mkv"
        metadata = {key.lower(): value for key, value in container.metadata.items()}
        assert "synthetic" in metadata["comment"].lower()
    assert [number_of(frame.image) for frame in read(path)] == list(range(30))
    if suffix != ".mkv":
        assert is_box_before(path, b"moov", b"mdat")
    assert list(tmp_path.iterdir()) == [path]


@settings(max_examples=15, deadline=None)
@given(st.integers(16, 70), st.integers(16, 70))
def test_odd_sizes_repeat_the_edge(tmp_path_factory: pytest.TempPathFactory, width: int, height: int) -> None:
    path = tmp_path_factory.mktemp("odd") / "a.mp4"
    write(path, [quadrants(width, height)] * 2)
    image = read(path)[0].image
    assert image.shape == (height + height % 2, width + width % 2, 3)
    for y, x, colour in ((2, 2, (255, 0, 0)), (2, -2, (0, 255, 0)), (-2, 2, (0, 0, 255)), (-1, -1, (255, 255, 255))):
        assert np.abs(image[y, x].astype(int) - colour).max() <= 12


COLOURS = [(200, 60, 40), (40, 180, 60), (50, 70, 210), (255, 255, 255), (0, 0, 0), (128, 128, 128), (224, 172, 140)]


def test_flat_colours_come_back(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", [flat(colour) for colour in COLOURS])
    for frame, colour in zip(read(tmp_path / "a.mp4"), COLOURS, strict=True):
        assert np.abs(frame.image.astype(int) - colour).max() <= 2


def test_the_stored_bytes_are_bt709_in_the_limited_range(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", [flat((255, 0, 0))] * 3)
    with av.open(tmp_path / "a.mp4") as container:
        planes = next(container.decode(video=0)).to_ndarray()
    # 16 + 219 * 0.2126, 128 - 224 * 0.2126 / (2 - 2 * 0.0722), 128 + 224 / 2
    found = planes[8, 8], planes[48 + 2, 8], planes[48 + 12 + 2, 8]
    assert np.abs(np.subtract(found, (62.6, 102.3, 240)).astype(float)).max() <= 1.5


VARIABLE = [0, 1, 2, 10, 11, 40, 41, 42, 43, 90]


@pytest.mark.parametrize(
    ("rate", "time_base", "pts"),
    [
        (NTSC, 1 / NTSC, None),
        (NTSC, Fraction(1, 30000), [1001 * i for i in range(10)]),
        (Fraction(24000, 1001), Fraction(1, 90000), [3754 * i for i in range(10)]),
        (Fraction(30), Fraction(1, 30), VARIABLE),
        (Fraction(183, 10), Fraction(1, 90000), [3003 * p + p % 3 for p in VARIABLE]),
        (RATE, Fraction(1, 1000), [40 * i + 500 for i in range(10)]),
        (RATE, Fraction(1, 12800), [512 * i for i in range(10)]),
    ],
)
def test_time_stamps_are_kept_exactly(
    tmp_path: Path, rate: Fraction, time_base: Fraction, pts: list[int] | None
) -> None:
    pts = pts or list(range(10))
    images = [numbered(i) for i in range(10)]
    write(tmp_path / "a.mp4", images, pts=pts, rate=rate, time_base=time_base)
    assert stored_times(tmp_path / "a.mp4") == [p * time_base for p in pts]
    write(tmp_path / "a.mkv", images, pts=pts, rate=rate, time_base=time_base)
    np.testing.assert_allclose(
        [float(time) for time in stored_times(tmp_path / "a.mkv")], [float(p * time_base) for p in pts], atol=6e-4
    )


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("duration", [5, 40, *slow(10, 300)])
def test_the_last_image_stays_as_long_as_it_should(tmp_path: Path, suffix: str, duration: int) -> None:
    path = tmp_path / f"a{suffix}"
    sound = write_clip(tmp_path / "s.mov", [numbered(0)] * 100, sound="aac")
    with VideoWriter(
        path, width=64, height=48, rate=Fraction(10), time_base=Fraction(1, 100), audio_from=sound
    ) as writer:
        for index, pts in enumerate([0, 20, 30, 40, 70]):
            writer.write(numbered(index), pts, duration)
    last = read(path)[-1]
    assert (last.pts + last.duration) * last.time_base == Fraction(70 + duration, 100)
    assert [number_of(frame.image) for frame in read(path)] == list(range(5))
    assert sound_span(path)[1] == pytest.approx(0.7 + duration / 100, abs=0.05)


def test_one_image_lasts_one_frame(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", [quadrants()])
    with av.open(tmp_path / "a.mp4") as container:
        assert container.duration == av.time_base // 25


@pytest.mark.parametrize(
    ("source", "codec", "target", "expected"),
    [
        ("s.mp4", "aac", ".mp4", "copied"),
        ("s.mp4", "aac", ".mkv", "copied"),
        ("s.mp4", "aac", ".mov", "copied"),
        ("s.mp4", "libmp3lame", ".mp4", "copied"),
        ("s.mp4", "ac3", ".mp4", "re-encoded to AAC"),
        ("s.mp4", "eac3", ".mp4", "re-encoded to AAC"),
        ("s.mov", "alac", ".mp4", "re-encoded to AAC"),
        ("s.mov", "alac", ".mov", "copied"),
        ("s.mkv", "libopus", ".mp4", "copied"),
        ("s.mkv", "flac", ".mkv", "copied"),
        ("s.mov", "pcm_s16le", ".mov", "copied"),
        ("s.mov", "pcm_s16le", ".mp4", "re-encoded to AAC"),
        ("s.mkv", "libopus", ".mov", "re-encoded to AAC"),
        ("s.ts", "aac", ".mp4", "re-encoded to AAC"),
        ("s.ts", "mp2", ".mp4", "re-encoded to AAC"),
    ],
)
def test_sound_is_carried_over(tmp_path: Path, source: str, codec: str, target: str, expected: str) -> None:
    driving = write_clip(tmp_path / source, [numbered(i) for i in range(50)], sound=codec)
    with open_video(driving) as reader:
        frames = [frame for frame in reader if isinstance(frame, Frame)]
        base = reader.info.time_base
    output = tmp_path / f"out{target}"
    writer = write(output, [f.image for f in frames], pts=[f.pts for f in frames], time_base=base, audio_from=driving)
    assert writer.audio == expected
    start, end = sound_span(output)
    assert abs(start - float(times(output)[0])) < 0.035
    assert abs(end - 2) < 0.06
    with av.open(output) as container:
        kinds = "".join(packet.stream.type[0] for packet in container.demux() if packet.size)
    # Written side by side: neither kind may pile up in memory or make a player search.
    assert max(len(run) for run in kinds.split("v")) <= 8 and max(len(run) for run in kinds.split("a")) <= 16


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_sound_ends_with_the_images(tmp_path: Path, codec: str) -> None:
    source = write_clip(tmp_path / "s.mov", [numbered(i) for i in range(50)], sound=codec, sound_seconds=2)
    write(tmp_path / "a.mp4", [numbered(i) for i in range(10)], audio_from=source)
    assert 0.4 <= sound_span(tmp_path / "a.mp4")[1] < 0.45


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_sound_that_ends_early_does_not_hold_up_the_images(tmp_path: Path, codec: str) -> None:
    images = [numbered(i) for i in range(50)]
    source = write_clip(tmp_path / "s.mov", images, sound=codec, sound_seconds=0.5)
    write(tmp_path / "a.mp4", images, audio_from=source)
    assert len(read(tmp_path / "a.mp4")) == 50
    assert 0.5 <= sound_span(tmp_path / "a.mp4")[1] < 0.56


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_sound_that_starts_late_stays_late(tmp_path: Path, codec: str) -> None:
    images = [numbered(i) for i in range(50)]
    source = write_clip(
        tmp_path / "s.mov", images, sound=codec, sound_start=Fraction(1, 2), sound_seconds=1, options={"bf": "0"}
    )
    assert sound_span(source)[0] == pytest.approx(0.5, abs=0.03)
    write(tmp_path / "a.mp4", images, audio_from=source)
    assert sound_span(tmp_path / "a.mp4")[0] == pytest.approx(0.5, abs=0.03)
    assert sound_span(tmp_path / "a.mp4")[1] == pytest.approx(1.5, abs=0.06)


def test_sound_that_the_container_refuses_is_encoded_anew(tmp_path: Path) -> None:
    """MP4 has no MP3 below 16 kHz."""
    images = [numbered(i) for i in range(25)]
    source = write_clip(tmp_path / "s.avi", images, codec="mpeg4", sound="libmp3lame", sound_rate=8000)
    assert write(tmp_path / "a.mp4", images, audio_from=source).audio == "re-encoded to AAC"
    assert sound_span(tmp_path / "a.mp4")[1] == pytest.approx(1, abs=0.15)
    assert write(tmp_path / "a.mkv", images, audio_from=source).audio == "copied"


def test_sound_that_cannot_be_stored_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [numbered(i) for i in range(25)]
    source = write_clip(tmp_path / "s.mp4", images, sound="aac")

    def fail(*_: object) -> None:
        raise av.InvalidDataError(-1, "Invalid data")

    monkeypatch.setattr(AudioTrack, "feed", fail)
    with pytest.raises(OutputError, match=r"the sound of .*s\.mp4 is damaged"):
        write(tmp_path / "a.mp4", images, audio_from=source)
    assert list(tmp_path.iterdir()) == [source]


def test_a_size_that_cannot_be_encoded_is_refused_at_once(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="20000 x 32"),
        VideoWriter(tmp_path / "a.mp4", width=20000, height=32, rate=RATE, time_base=1 / RATE),
    ):
        pytest.fail("the block must not run")
    assert list(tmp_path.iterdir()) == []


def loudness(path: Path, start: float, end: float) -> float:
    with av.open(path) as container:
        parts = [
            (frame.time or 0, frame.to_ndarray().astype(np.float64), frame.sample_rate)
            for frame in container.decode(audio=0)
        ]
    heard = [np.abs(data).mean() for time, data, _ in parts if start <= time < end]
    return float(np.mean(heard))


def test_a_hole_in_the_sound_stays_where_it_is(tmp_path: Path) -> None:
    images = [numbered(i) for i in range(50)]
    source = write_clip(tmp_path / "s.mkv", images, sound="pcm_s16le", sound_hole=(0.8, 1.2))
    writer = write(tmp_path / "a.mp4", images, audio_from=source)
    assert writer.audio == "re-encoded to AAC"
    hole = loudness(tmp_path / "a.mp4", 0.88, 1.12)
    assert hole < 0.02 * loudness(tmp_path / "a.mp4", 0.3, 0.7)
    assert loudness(tmp_path / "a.mp4", 1.3, 1.7) == pytest.approx(loudness(tmp_path / "a.mp4", 0.3, 0.7), rel=0.1)


def test_a_clock_that_does_not_start_at_0_is_set_to_the_file(tmp_path: Path) -> None:
    images = [numbered(i) for i in range(25)]
    pts = [25 * 3600 + i for i in range(25)]
    source = write_clip(tmp_path / "s.ts", images, pts=pts, sound="mp2", sound_start=Fraction(3600))
    with open_video(source) as reader:
        frames = [frame for frame in reader if isinstance(frame, Frame)]
    first = frames[0].pts * frames[0].time_base
    assert 0 <= first < Fraction(1, 10)
    write(
        tmp_path / "a.mp4",
        images,
        pts=[frame.pts for frame in frames],
        time_base=frames[0].time_base,
        audio_from=source,
    )
    assert times(tmp_path / "a.mp4")[0] == first
    assert abs(sound_span(tmp_path / "a.mp4")[0] - float(first)) < 0.1


def test_a_source_without_sound_gives_a_video_without_sound(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "s.mp4", [numbered(i) for i in range(5)])
    assert write(tmp_path / "a.mp4", [numbered(i) for i in range(5)], audio_from=source).audio is None
    with open_video(tmp_path / "a.mp4") as reader:
        assert not reader.info.has_audio


@pytest.mark.parametrize("name", ["a.avi", "a", "a.mp4.txt", "a.gif"])
def test_other_kinds_of_file_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"\.mkv, \.mov, \.mp4"):
        VideoWriter(tmp_path / name, width=64, height=48, rate=RATE, time_base=1 / RATE)


def test_the_callers_metadata_is_kept_beside_the_notice(tmp_path: Path) -> None:
    with VideoWriter(
        tmp_path / "a.mp4", width=64, height=48, rate=RATE, time_base=1 / RATE, metadata={"title": "Ada"}
    ) as writer:
        writer.write(quadrants(), 0)
    with av.open(tmp_path / "a.mp4") as container:
        assert container.metadata["title"] == "Ada"
        assert "Synthetic" in container.metadata["comment"]


def test_wrong_images_and_times_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="image"):
        write(tmp_path / "a.mp4", [numbered(0), numbered(1, 32, 32)])
    for pts in ([0, 2, 2], [0, 2, 1], [-1, 0, 1]):
        with pytest.raises(ValueError, match="pts"):
            write(tmp_path / "a.mp4", [numbered(i) for i in range(3)], pts=pts)
    with (
        pytest.raises(OutputError, match="no image"),
        VideoWriter(tmp_path / "a.mp4", width=64, height=48, rate=RATE, time_base=1 / RATE),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("written", [0, 3, 60])
def test_a_failure_at_any_time_leaves_nothing(
    tmp_path: Path, suffix: str, error: type[BaseException], written: int
) -> None:
    source = write_clip(tmp_path / "s.mp4", [numbered(i) for i in range(10)], sound="aac")
    with (
        pytest.raises(error),
        VideoWriter(
            tmp_path / f"a{suffix}", width=64, height=48, rate=RATE, time_base=1 / RATE, audio_from=source
        ) as writer,
    ):
        for index in range(written):
            writer.write(numbered(index % 50), index)
        raise error
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("room", [0, 40_000, *slow(1, 2_000, 150_000, 300_000)])
def test_a_disk_that_fills_up_at_any_byte_is_reported_and_leaves_nothing(
    tmp_path: Path, suffix: str, room: int
) -> None:
    """A limit on the size of files stands for the full disk: both make write() fail."""
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(80)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(SystemFailure) as caught:
            write(tmp_path / f"a{suffix}", images)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "a" + suffix in str(caught.value) and caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_the_limits_above_bite_early_and_late(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    write(tmp_path / "a.mp4", [generator.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(80)])
    assert 300_000 < (tmp_path / "a.mp4").stat().st_size < 1_200_000


def test_a_disk_that_is_full_for_the_last_bytes_only(tmp_path: Path) -> None:
    """The tables of an MP4 are written at the very end, when the container is closed."""
    images = [numbered(i) for i in range(30)]
    write(tmp_path / "whole.mp4", images)
    size = (tmp_path / "whole.mp4").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for missing in (1, 50, 700, 1500):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size - missing, before[1]))
            with pytest.raises(SystemFailure):
                write(tmp_path / "a.mp4", images)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.iterdir()] == ["whole.mp4"]


def test_a_disk_that_fails_to_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SystemFailure, match="No space left"):
        write(tmp_path / "a.mp4", [numbered(i) for i in range(3)])
    assert list(tmp_path.iterdir()) == []


WRITE_FOR_EVER = """
import itertools
import numpy as np
from fractions import Fraction
from cbtalk.media.video_writer import VideoWriter
image = np.zeros((64, 64, 3), np.uint8)
with VideoWriter(target, width=64, height=64, rate=Fraction(25), time_base=Fraction(1, 25)) as writer:
    for pts in itertools.count():
        writer.write(image, pts)
        if pts == 100:
            print("ready", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_writer_never_leaves_a_part_under_the_name(tmp_path: Path, number: signal.Signals) -> None:
    assert killed(tmp_path / "a.mp4", WRITE_FOR_EVER, number) == -number
    left = list(tmp_path.iterdir())
    assert all(path.name.endswith(SUFFIX) for path in left)
    assert len(left) == (1 if number == signal.SIGKILL else 0)


def test_no_interruption_is_lost(tmp_path: Path) -> None:
    """Whatever the writer is at when a handler raises; one in ten arrives while FFmpeg writes to the disk."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    image = np.zeros((64, 64, 3), np.uint8)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for attempt in range(40):
            writer = VideoWriter(tmp_path / "a.mp4", width=64, height=64, rate=RATE, time_base=1 / RATE)
            with pytest.raises(KeyboardInterrupt), writer:
                signal.setitimer(signal.ITIMER_REAL, 0.02 + 0.0003 * attempt)
                for pts in range(20_000):
                    writer.write(image, pts)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    images = [numbered(i, 320, 240) for i in range(50)]
    source = write_clip(tmp_path / "s.mp4", images, sound="aac", sound_seconds=80)
    resident = []
    with VideoWriter(
        tmp_path / "a.mp4",
        width=320,
        height=240,
        rate=RATE,
        time_base=1 / RATE,
        audio_from=source,
        preset="ultrafast",
    ) as writer:
        for pts, image in zip(range(2500), itertools.cycle(images), strict=False):
            writer.write(image, pts)
            if pts in (250, 2499):
                resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    assert resident[1] - resident[0] < 10 * 2**20  # one frame has 0.2 MiB, all have 550
