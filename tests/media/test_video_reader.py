import itertools
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from cbtalk.errors import InputError
from cbtalk.media.video_reader import BadFrame, Frame, open_video
from tests.helpers.videos import (
    flat,
    number_of,
    numbered,
    overwrite_frames,
    quadrants,
    write_clip,
    write_sound_only,
    write_yuv,
)

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
PLAIN = {"crf": "4", "preset": "ultrafast"}


def read(path: Path) -> list[Frame | BadFrame]:
    with open_video(path) as reader:
        return list(reader)


def good(path: Path) -> list[Frame]:
    frames = read(path)
    assert all(isinstance(frame, Frame) for frame in frames), [f for f in frames if isinstance(f, BadFrame)]
    return [frame for frame in frames if isinstance(frame, Frame)]


def corner_names(image: np.ndarray) -> str:
    """The colours, of red, green, blue and white, that are top left, top right, bottom left, bottom right."""
    names = {RED: "r", GREEN: "g", BLUE: "b", WHITE: "w"}
    found = (image[y, x].astype(int) for y, x in ((8, 8), (8, -9), (-9, 8), (-9, -9)))
    return "".join(min(names.items(), key=lambda item: np.abs(np.subtract(item[0], pixel)).sum())[1] for pixel in found)


@pytest.mark.parametrize(
    ("rotation", "mirrored", "expected"),
    [
        (0, False, "rgbw"),
        (90, False, "gwrb"),
        (180, False, "wbgr"),
        (270, False, "brwg"),
        (0, True, "grwb"),
        (90, True, "wgbr"),
        (180, True, "bwrg"),
        (270, True, "rbgw"),
    ],
)
def test_display_rotation_is_applied(tmp_path: Path, rotation: int, mirrored: bool, expected: str) -> None:
    path = write_clip(tmp_path / "a.mp4", [quadrants()] * 2, rotation=rotation, mirrored=mirrored, options=PLAIN)
    with open_video(path) as reader:
        turned = rotation in (90, 270)
        assert (reader.info.width, reader.info.height) == ((48, 64) if turned else (64, 48))
        for frame in reader:
            assert isinstance(frame, Frame)
            assert frame.image.shape == (reader.info.height, reader.info.width, 3)
            # The rotation is counter-clockwise; the mirroring comes after it.
            assert corner_names(frame.image) == expected
            np.testing.assert_array_equal(frame.image, np.ascontiguousarray(frame.image))


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(25), Fraction(60)])
def test_the_rate_is_exact_and_so_is_every_time_stamp(tmp_path: Path, rate: Fraction) -> None:
    path = write_clip(tmp_path / "a.mp4", [numbered(i) for i in range(30)], rate=rate, options=PLAIN)
    with open_video(path) as reader:
        assert reader.info.average_rate == rate
        assert reader.info.frames == 30
        assert reader.info.duration == pytest.approx(float(30 / rate), abs=1e-3)
        frames = list(reader)
    assert [frame.pts * frame.time_base for frame in frames if isinstance(frame, Frame)] == [
        i / rate for i in range(30)
    ]
    assert [frame.index for frame in frames] == list(range(30))


def test_variable_rate_keeps_its_time_stamps_and_invents_no_frames(tmp_path: Path) -> None:
    pts = [0, 1, 2, 10, 11, 40, 41, 42, 43, 90]
    images = [numbered(i) for i in range(10)]
    path = write_clip(tmp_path / "a.mp4", images, pts=pts, rate=30, time_base=Fraction(1, 30), options=PLAIN)
    frames = good(path)
    assert [frame.pts * frame.time_base for frame in frames] == [Fraction(p, 30) for p in pts]
    assert [number_of(frame.image) for frame in frames] == list(range(10))


def yuv_bytes(rgb: tuple[int, int, int], kr: float, kb: float, limited: bool) -> tuple[int, int, int]:
    """The definition: Y = kr R + kg G + kb B, chroma scaled to +-0.5, then quantised to the full or limited range."""
    red, green, blue = (value / 255 for value in rgb)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = (blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)
    if limited:
        return round(16 + 219 * luma), round(128 + 224 * chroma[0]), round(128 + 224 * chroma[1])
    return round(255 * luma), min(255, round(128 + 255 * chroma[0])), min(255, round(128 + 255 * chroma[1]))


BT709, BT601, BT2020 = (0.2126, 0.0722), (0.299, 0.114), (0.2627, 0.0593)
COLOURS = [(200, 60, 40), (40, 180, 60), (50, 70, 210), (255, 255, 255), (0, 0, 0), (224, 172, 140)]


@pytest.mark.parametrize("limited", [True, False])
@pytest.mark.parametrize(("matrix", "weights"), [(1, BT709), (5, BT601), (6, BT601), (9, BT2020)])
def test_colours_follow_the_tagged_matrix_and_range(
    tmp_path: Path, matrix: int, weights: tuple[float, float], limited: bool
) -> None:
    for colour in COLOURS:
        planes = yuv_bytes(colour, *weights, limited)
        path = write_yuv(tmp_path / "a.mkv", planes, matrix=matrix, limited=limited, size=(64, 48))
        assert np.abs(good(path)[0].image.astype(int) - colour).max() <= 2


@pytest.mark.parametrize(("size", "weights"), [((64, 48), BT601), ((64, 720), BT709)])
def test_untagged_colours_are_bt601_in_small_and_bt709_in_large_videos(
    tmp_path: Path, size: tuple[int, int], weights: tuple[float, float]
) -> None:
    for colour in COLOURS:
        planes = yuv_bytes(colour, *weights, True)
        path = write_yuv(tmp_path / "a.mkv", planes, matrix=2, limited=True, size=size)
        assert np.abs(good(path)[0].image.astype(int) - colour).max() <= 2


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mov", "libx264", "yuv420p"),
        ("a.mkv", "libx264", "yuv444p10le"),
        ("b.mp4", "libx265", "yuv420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("b.webm", "libvpx", "yuv420p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("b.avi", "mjpeg", "yuvj420p"),
        ("a.ts", "libx264", "yuv420p"),
        ("a.mpg", "mpeg2video", "yuv420p"),
        ("g.mkv", "ffv1", "gray"),
        ("a.gif", "gif", "rgb8"),
    ],
)
def test_common_containers_and_codecs_are_read(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    images = [numbered(i) for i in range(0, 40, 2)]
    frames = good(write_clip(tmp_path / name, images, codec=codec, pix_fmt=pix_fmt, options=options))
    assert len(frames) == 20
    times = [frame.pts * frame.time_base - frames[0].pts * frames[0].time_base for frame in frames]
    np.testing.assert_allclose([float(time) for time in times], [i / 25 for i in range(20)], atol=6e-3)
    assert 0 <= frames[0].pts * frames[0].time_base < Fraction(1, 10)
    brightness = [np.median(frame.image) for frame in frames]
    np.testing.assert_allclose(brightness, [np.median(image) for image in images], atol=40 if codec == "gif" else 6)


@pytest.mark.parametrize("size", [(17, 23), (64, 49), (65, 48), (130, 19)])
def test_odd_sizes_are_read_whole(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = good(write_clip(tmp_path / "a.mov", [quadrants(*size)], codec="png", pix_fmt="rgb24"))
    np.testing.assert_array_equal(frames[0].image, quadrants(*size))


def test_transparent_video_is_laid_over_white(tmp_path: Path) -> None:
    with av.open(tmp_path / "a.mov", "w") as container:
        stream = container.add_stream("qtrle", rate=25, width=32, height=32, pix_fmt="argb")
        pixels = np.zeros((32, 32, 4), np.uint8)
        pixels[:, :16, 3] = 255
        frame = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format="argb")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    image = good(tmp_path / "a.mov")[0].image
    assert image.shape == (32, 32, 3)
    assert (image[:, :16] == 0).all() and (image[:, 16:] == 255).all()


def test_pixels_that_are_not_square_are_made_so(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", [quadrants()] * 2, pixel_aspect=Fraction(2), options=PLAIN)
    with open_video(path) as reader:
        assert (reader.info.width, reader.info.height) == (128, 48)
        assert all(isinstance(frame, Frame) and frame.image.shape == (48, 128, 3) for frame in reader)


def test_sound_is_noticed(tmp_path: Path) -> None:
    for sound, expected in (("aac", True), (None, False)):
        path = write_clip(tmp_path / "a.mp4", [numbered(i) for i in range(5)], sound=sound)
        with open_video(path) as reader:
            assert reader.info.has_audio is expected


def zeros(size: int) -> bytes:
    return bytes(size)


def noise(size: int) -> bytes:
    return np.random.default_rng(0).bytes(size)


@pytest.mark.parametrize("data", [zeros, noise])
@pytest.mark.parametrize(
    ("codec", "options"),
    [("libx264", {"bf": "0"}), ("libx264", {}), ("libx265", {"x265-params": "log-level=none:keyint=8"}), ("mpeg4", {})],
)
def test_a_damaged_frame_is_reported_in_its_place_and_the_rest_is_read(
    tmp_path: Path, codec: str, options: dict[str, str], data: Callable[[int], bytes]
) -> None:
    images = [numbered(i) for i in range(50)]
    path = write_clip(tmp_path / "a.mp4", images, codec=codec, options=options)
    before = [frame.pts for frame in good(path)]
    overwrite_frames(path, [25], data)
    frames = read(path)
    bad = [frame for frame in frames if isinstance(frame, BadFrame)]
    assert [frame.index for frame in frames] == list(range(50))
    assert [frame.pts for frame in frames] == before
    # FFmpeg's HEVC decoder starts again only at the next key frame.
    assert 1 <= len(bad) <= (8 if codec == "libx265" else 2)
    assert all(20 <= frame.index <= 33 and frame.reason for frame in bad)
    tail = [number_of(frame.image) for frame in frames[-10:] if isinstance(frame, Frame)]
    np.testing.assert_allclose(tail, range(40, 50), atol=3)


def test_a_lost_key_frame_never_turns_time_back(tmp_path: Path) -> None:
    options = {"g": "20", "keyint_min": "20", "sc_threshold": "0"}
    path = write_clip(tmp_path / "a.mp4", [numbered(i) for i in range(60)], options=options)
    overwrite_frames(path, [20], zeros)
    frames = read(path)
    assert [frame.index for frame in frames] == list(range(len(frames)))
    times = [frame.pts for frame in frames if frame.pts is not None]
    assert times == sorted(set(times)) and len(times) == 60
    assert isinstance(frames[0], Frame) and isinstance(frames[-1], Frame)
    assert any(isinstance(frame, BadFrame) for frame in frames)


def test_a_cut_off_matroska_gives_what_is_there(tmp_path: Path) -> None:
    images = [np.random.default_rng(i).integers(0, 256, (48, 64, 3), dtype=np.uint8) for i in range(40)]
    path = write_clip(tmp_path / "a.mkv", images)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames = read(path)
    assert 5 < len(frames) < 40
    assert all(isinstance(frame, Frame) for frame in frames[:-2])


def test_raw_streams_without_time_stamps_get_them(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.h264", [numbered(i) for i in range(12)], options={"bf": "0"})
    frames = good(path)
    assert [number_of(frame.image) for frame in frames] == list(range(12))
    steps = {b.pts - a.pts for a, b in itertools.pairwise(frames)}
    assert len(steps) == 1 and frames[0].pts >= 0 and steps.pop() * frames[0].time_base == Fraction(1, 25)


def check_refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_video(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def test_bad_videos_are_refused_in_one_line(tmp_path: Path) -> None:
    assert "no such file" in check_refused(tmp_path / "none.mp4")
    assert "folder" in check_refused(tmp_path)
    (tmp_path / "empty.mp4").touch()
    assert "empty" in check_refused(tmp_path / "empty.mp4")
    (tmp_path / "text.mp4").write_text("this is not a video\n" * 100)
    assert "not a video" in check_refused(tmp_path / "text.mp4")
    assert "sound but no video" in check_refused(write_sound_only(tmp_path / "sound.mp4"))
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "ordinary file" in check_refused(tmp_path / "pipe.mp4")


def test_playlists_do_not_reach_other_files(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.ts", [numbered(i) for i in range(5)])
    (tmp_path / "a.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\n{tmp_path}/a.ts\n#EXT-X-ENDLIST\n")
    check_refused(tmp_path / "a.mp4")


@pytest.mark.parametrize("options", [{}, {"movflags": "faststart"}], ids=["table at the end", "table at the start"])
def test_a_cut_off_mp4_is_read_where_its_table_is_there(tmp_path: Path, options: dict[str, str]) -> None:
    path = tmp_path / "a.mp4"
    with av.open(path, "w", container_options=options) as container:
        stream = container.add_stream("libx264", rate=25, width=64, height=48, pix_fmt="yuv420p")
        for index in range(20):
            image = np.random.default_rng(index).integers(0, 256, (48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode(None))
    assert len(good(path)) == 20
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])
    if not options:  # FFmpeg finds nothing without the table
        assert "cut off" in check_refused(path)
        return
    with open_video(path) as reader:
        assert "is cut off" in reader.info.warnings[0]
        frames = list(reader)
    assert 8 <= len(frames) < 20 and all(isinstance(frame, Frame) for frame in frames[:-3])


def test_rubbish_after_an_mp4_is_no_reason_to_refuse_it(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", [numbered(i) for i in range(5)])
    for rubbish in (b"\0" * 100, b"\xff" * 7, b"xyz"):
        path.write_bytes(path.read_bytes() + rubbish)
        assert len(good(path)) == 5


def test_a_video_without_frames_is_refused(tmp_path: Path) -> None:
    with av.open(tmp_path / "a.mp4", "w") as container:
        container.add_stream("libx264", rate=25, width=64, height=48, pix_fmt="yuv420p")
        container.start_encoding()
    check_refused(tmp_path / "a.mp4")


def test_a_video_of_nothing_but_damage_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", [numbered(i) for i in range(5)])
    overwrite_frames(path, range(5), noise)
    assert "no image" in check_refused(path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.gif", "a.bmp", "a.tif", "renamed.mp4"])
def test_a_still_image_is_refused_with_what_is_needed(tmp_path: Path, name: str) -> None:
    Image.fromarray(quadrants()).save(tmp_path / name, format="PNG" if name == "renamed.mp4" else None)
    assert "still image; a video or a motion file is needed" in check_refused(tmp_path / name)


def test_cover_art_is_no_video(tmp_path: Path) -> None:
    with av.open(tmp_path / "a.mp4", "w") as container:
        audio = container.add_stream("aac", rate=48000)
        cover = container.add_stream("mjpeg", rate=1, width=64, height=48, pix_fmt="yuvj420p")
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(quadrants())))
        container.mux(cover.encode(None))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), format="s16", layout="stereo")
        frame.sample_rate = 48000
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    assert "sound but no video" in check_refused(tmp_path / "a.mp4")


def test_tiny_videos_are_refused(tmp_path: Path) -> None:
    assert "8 x 8" in check_refused(write_clip(tmp_path / "a.mp4", [flat(RED, 8, 8)] * 3))


def test_names_that_look_like_addresses_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "a.mp4", [numbered(1)] * 3)
    monkeypatch.chdir(tmp_path)
    for name in ("http:x.mp4", "concat:a|b.mp4", "-i.mp4", "50%03d.mp4", "é ü.mp4"):
        Path(name).write_bytes((tmp_path / "a.mp4").read_bytes())
        assert len(good(Path(name))) == 3


def test_the_same_file_read_twice_gives_the_same_frames(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", [numbered(i) for i in range(20)])
    for first, second in zip(good(path), good(path), strict=True):
        np.testing.assert_array_equal(first.image, second.image)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4")])
def test_damaged_files_are_read_in_order_or_refused(tmp_path: Path, name: str, codec: str) -> None:
    generator = np.random.default_rng(0)
    whole = write_clip(tmp_path / name, [numbered(i) for i in range(20)], codec=codec).read_bytes()
    for _ in range(25):
        data = bytearray(whole)
        for _ in range(int(generator.integers(1, 20))):
            data[int(generator.integers(len(data)))] = int(generator.integers(256))
        (tmp_path / name).write_bytes(data)
        try:
            frames = read(tmp_path / name)
        except InputError as error:
            assert "\n" not in str(error)
            continue
        assert [frame.index for frame in frames] == list(range(len(frames)))
        times = [frame.pts for frame in frames if isinstance(frame, Frame)]
        assert times == sorted(set(times)) and times[0] >= 0


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25, width=320, height=240, pix_fmt="yuv420p", options=PLAIN)
        for index in range(2500):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(index % 50, 320, 240))))
        container.mux(stream.encode(None))
    resident = []
    with open_video(path) as reader:
        for frame in reader:
            if frame.index in (250, 2499):
                resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    assert resident[1] - resident[0] < 10 * 2**20  # one frame has 0.2 MiB, all have 550
