"""Files whose time stamps are not in the order of display, fields that come in packets of their own, and losses."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from cbtalk.media.display_order import DisplayOrder, Shown
from cbtalk.media.video_reader import BadFrame, Frame, open_video
from tests.helpers.videos import number_of, numbered, write_clip

REORDERED = [
    {"bf": "2"},
    {"bf": "3", "b-pyramid": "normal", "b_strategy": "0"},
    {"bf": "8", "b-pyramid": "strict", "b_strategy": "0"},
    {"bf": "0"},
]


def in_avi(path: Path, options: dict[str, str], codec: str = "libx264") -> Path:
    """40 numbered images at 25 a second."""
    return write_clip(path, [numbered(i) for i in range(40)], codec=codec, options={**options, "g": "20"})


def check_all_shown_evenly(path: Path) -> None:
    with open_video(path) as reader:
        frames = list(reader)
    assert all(isinstance(frame, Frame) for frame in frames)
    good = [frame for frame in frames if isinstance(frame, Frame)]
    assert [number_of(frame.image) for frame in good] == list(range(40))
    times = np.array([float(frame.pts * frame.time_base) for frame in good])
    # The muxer of AVI leaves a slot empty where the encoder's first image is decoded before its time.
    np.testing.assert_allclose(np.diff(times[1:]), 0.04, atol=0.001)
    assert times[0] == 0 and times[-1] <= 41 * 0.04


@pytest.mark.parametrize("options", REORDERED, ids=str)
def test_b_frames_in_avi_and_copied_from_there(tmp_path: Path, options: dict[str, str]) -> None:
    path = in_avi(tmp_path / "a.avi", options)
    check_all_shown_evenly(path)
    with av.open(path) as source, av.open(tmp_path / "b.mp4", "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    check_all_shown_evenly(tmp_path / "b.mp4")


@dataclass
class Packet:
    pts: int | None
    dts: int | None = None
    is_discard: bool = False


@dataclass
class Decoded:
    pts: int | None
    is_corrupt: bool = False
    interlaced_frame: bool = False
    dts: int | None = None


def arranged(
    packets: list[int], decoded: list[Any], codec: str = "h264", step: int = 10
) -> list[tuple[str, int | None]]:
    """("shown" or "lost", ticks) for packets and what the decoder makes of them, ten ticks a frame."""
    order = DisplayOrder(codec, Fraction(10))
    for pts in packets:
        order.add(Packet(pts))  # type: ignore[arg-type]
    found = order.arrange(iter(decoded))
    return [("shown" if isinstance(item, Shown) else "lost", item.ticks) for item in found]


def frames(*times: int, **what: bool) -> list[Decoded]:
    return [Decoded(time, **what) for time in times]


def test_fields_in_packets_of_their_own_are_no_losses() -> None:
    packets = list(range(0, 100, 5))
    shown = arranged(packets, frames(*range(0, 100, 10), interlaced_frame=True))
    assert shown == [("shown", time) for time in range(0, 100, 10)]


def test_a_lost_frame_of_two_fields_is_one() -> None:
    packets = list(range(0, 100, 5))
    there = [time for time in range(0, 100, 10) if time != 40]
    shown = arranged(packets, frames(*there, interlaced_frame=True))
    assert shown == [("lost" if time == 40 else "shown", time) for time in range(0, 100, 10)]


def test_frames_that_come_late_after_damage_are_not_lost() -> None:
    decoded = [*frames(0, 10), "cannot be decoded", *frames(40, 30, 60, 50, 70)]
    expected = [("lost" if time == 20 else "shown", time) for time in range(0, 80, 10)]
    assert arranged(list(range(0, 80, 10)), decoded) == expected


def test_a_hole_beside_damage_is_filled_and_counted() -> None:
    decoded = [*frames(0, 10), *frames(20, is_corrupt=True), *frames(80, 90, 130)]
    expected: list[tuple[str, int | None]] = [("shown", 0), ("shown", 10), ("shown", 20)]
    expected += [("lost", time) for time in range(30, 80, 10)]
    expected += [("shown", 80), ("shown", 90), ("shown", 130)]  # an image that stays is none
    assert arranged([0, 10, 20, 80, 90, 130], decoded) == expected


@pytest.mark.parametrize("codec", ["vp8", "mpeg4"])
def test_packets_that_show_nothing_are_no_losses(codec: str) -> None:
    shown = arranged(list(range(0, 80, 10)), frames(0, 10, 30, 40, 70), codec)
    assert shown == [("shown", time) for time in (0, 10, 30, 40, 70)]


def test_a_hole_in_a_matroska_file_is_counted(tmp_path: Path) -> None:
    images = [np.random.default_rng(i).integers(0, 256, (48, 64, 3), dtype=np.uint8) for i in range(60)]
    path = write_clip(tmp_path / "a.mkv", images, options={"g": "10", "crf": "30"})
    data = bytearray(path.read_bytes())
    start, end = len(data) * 4 // 10, len(data) * 6 // 10
    data[start:end] = np.random.default_rng(0).bytes(end - start)
    path.write_bytes(data)
    with open_video(path) as reader:
        found = list(reader)
    assert len(found) == pytest.approx(60, abs=1)
    assert 8 <= sum(isinstance(frame, BadFrame) for frame in found) <= 30
    times = [frame.pts for frame in found if frame.pts is not None]
    np.testing.assert_allclose(np.diff(times), 40, atol=6)


CASES = {  # file: frames, bad ones among them, when the last one ends
    "off.mkv": (60, 0, 2.4),
    "cat.ts": (120, 0, 4.8),
    "jump.ts": (120, 0, 4.8),
    "back.ts": (120, 0, 4.8),
    "overlap.ts": (120, 0, 4.8),
    "gap90.ts": (120, 0, 4.8),
    "reschange.ts": (120, 0, 4.8),
    "var.gif": (5, 0, 3.7),
    "vfrlast.mp4": (25, 0, 5.0),
    "h264b.avi": (60, 0, 2.4),
    "h264nob.avi": (60, 0, 2.44),
    "paff.ts": (30, 0, 1.2),
    "cor.mkv": (60, 24, 2.4),
    "trunc.mkv": (41, 0, 1.73),
    "turned.webm": (40, 0, 1.6),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_reproductions(shared: Path, name: str) -> None:
    expected, bad, end = CASES[name]
    with open_video(shared / "cases" / "media" / name) as reader:
        found = list(reader)
    assert (len(found), sum(isinstance(frame, BadFrame) for frame in found)) == (expected, bad)
    last = [frame for frame in found if isinstance(frame, Frame)][-1]
    assert float((last.pts + last.duration) * last.time_base) == pytest.approx(end, abs=0.03)
    assert 0 <= (found[0].pts or 0) * last.time_base < 0.03
