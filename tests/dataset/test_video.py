"""A frame read from a video by itself is that of the whole, in every kind of file."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cbtalk.dataset.video import Video
from cbtalk.errors import InputError
from tests.dataset.conftest import SIZE, expected
from tests.helpers.videos import numbered, overwrite_frames, write_clip
from tests.media.test_span import FILES, made
from tests.media.test_timeline import record

B_FRAMES = {"bf": "3", "b_strategy": "0", "g": "6", "crf": "10"}


def places(path: Path) -> tuple[bytes, np.ndarray]:
    """The index's entry of the frames of a video, and the packets from which they are decoded."""
    (record,) = Video().survey(path, SIZE, path.parent)
    return record.places, np.frombuffer(record.places, np.int64).reshape(2, -1)[1]


def read(path: Path, known: bytes, frames: Sequence[int]) -> np.ndarray:
    return Video().read(path, known, SIZE, path.parent, frames)


def assert_the_same(path: Path) -> np.ndarray:
    """Every frame, alone and with another one, equals that of the whole; returns where they are decoded from."""
    whole = expected(path)
    known, starts = places(path)
    assert len(starts) == len(whole)
    for number in range(len(whole)):
        np.testing.assert_array_equal(read(path, known, [number])[0], whole[number])
        pair = [number, number * 7 % len(whole)]
        np.testing.assert_array_equal(read(path, known, pair), whole[pair])
    return starts


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_kind_of_file(tmp_path: Path, name: str) -> None:
    starts = assert_the_same(made(tmp_path, name))
    if name in {"closed.mp4", "open.mp4", "open.mkv", "b.ts", "b.mpg", "four.mov", "vp9.webm"}:
        assert starts[-1] > 20, "decoded from a key frame near it"


@pytest.mark.parametrize("suffix", [".ts", ".mkv", ".webm", ".flv", ".mpg"])
def test_a_clock_that_starts_late(tmp_path: Path, suffix: str) -> None:
    assert_the_same(record(tmp_path / f"a{suffix}", start=3600))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.integers(1, 40), min_size=9, max_size=40),  # two frames are too little for FFmpeg to know a .ts
    suffix=st.sampled_from([".mp4", ".mkv", ".ts"]),
    late=st.integers(0, 500),
    open_gop=st.booleans(),
)
def test_a_rate_that_varies(tmp_path: Path, steps: list[int], suffix: str, late: int, open_gop: bool) -> None:
    options = {**B_FRAMES, **({"x264-params": "open-gop=1"} if open_gop else {})}
    pts = [late + int(time) for time in np.cumsum([0, *steps])]
    images = [numbered(number) for number in range(len(pts))]
    assert_the_same(write_clip(tmp_path / f"a{suffix}", images, pts=pts, time_base=Fraction(1, 100), options=options))


def test_turned_images(tmp_path: Path) -> None:
    images = [numbered(number) for number in range(30)]
    assert_the_same(write_clip(tmp_path / "a.mp4", images, rotation=90, mirrored=True, options=B_FRAMES))


def test_images_that_refresh_bit_by_bit(tmp_path: Path) -> None:
    options = {"g": "8", "x264-params": "intra-refresh=1", "bf": "0"}
    assert_the_same(write_clip(tmp_path / "a.mp4", [numbered(n) for n in range(40)], options=options))


def test_a_damaged_file_is_decoded_from_its_start(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", [numbered(number) for number in range(40)], options=B_FRAMES)
    overwrite_frames(path, [13], lambda size: b"\0" * size)
    assert not assert_the_same(path).any()


def test_a_size_that_changes(tmp_path: Path) -> None:
    """The first frame settles the size of all, so that none can be read without it."""
    path = tmp_path / "a.h264"
    with path.open("wb") as joined:
        for number, height in enumerate((48, 64, 48)):
            part = write_clip(
                tmp_path / f"{number}.h264", [numbered(frame, height=height) for frame in range(12)], options=B_FRAMES
            )
            joined.write(part.read_bytes())
    assert not assert_the_same(path).any()


def test_a_file_that_was_exchanged_is_told_of(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", [numbered(number) for number in range(40)], options=B_FRAMES)
    known, _ = places(path)
    write_clip(path, [numbered(number) for number in range(5)])
    with pytest.raises(InputError, match="frame 30 is not there any more"):
        read(path, known, [3, 30])
