import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbtalk.errors import InputError
from cbtalk.media.clips import clip_frames, decode_clip, find_clips, identity_of
from tests.helpers.videos import number_of, numbered, overwrite_frames, write_clip


def write_frames(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    for index, name in enumerate(names):
        Image.fromarray(numbered(index)).save(folder / name)


def test_videos_and_frame_folders_of_any_name(tmp_path: Path) -> None:
    write_clip(tmp_path / "ann__00.mp4", [numbered(i) for i in range(3)])
    write_frames(tmp_path / "deep" / "id1#x#0.mp4", ["a.png", "b.png"])
    write_frames(tmp_path / "Bob", ["frame_10.png", "frame_9.png"])
    (tmp_path / "notes.txt").write_text("not a clip")
    write_frames(tmp_path / ".hidden", ["a.png"])
    clips = {clip.name: clip.identity for clip in find_clips(tmp_path)}
    assert clips == {"Bob": "Bob", "ann__00.mp4": "ann", "deep/id1#x#0.mp4": "id1"}


def test_frames_are_in_numeric_order(tmp_path: Path) -> None:
    write_frames(tmp_path / "a", ["f10.png", "f9.png", "f1.png"])
    (clip,) = find_clips(tmp_path)
    assert [number_of(frame) for frame in clip_frames(clip, 48)] == [2, 1, 0]


@pytest.mark.parametrize(
    ("name", "identity"), [("ann__00.mp4", "ann"), ("id7#abc#1.mp4", "id7"), ("a_b.mp4", "a_b.mp4"), ("x__y#z", "x")]
)
def test_identity(name: str, identity: str) -> None:
    assert identity_of(name) == identity


def test_decoded_once_and_again_when_the_file_changes(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    path = write_clip(tmp_path / "clips.mp4", [numbered(i) for i in range(3)])
    (clip,) = find_clips(tmp_path)
    frames = decode_clip(clip, 32, cache)
    assert frames.shape == (3, 32, 32, 3) and frames.dtype == np.uint8 and isinstance(frames, np.memmap)
    written = next(cache.iterdir()).stat().st_mtime_ns
    decode_clip(clip, 32, cache)
    assert next(cache.iterdir()).stat().st_mtime_ns == written
    write_clip(path, [numbered(i) for i in range(5)])
    os.utime(path, ns=(1, 1))
    assert len(decode_clip(clip, 32, cache)) == 5
    assert decode_clip(clip, 16, cache).shape[1:] == (16, 16, 3)


def test_nothing_to_find(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no video file"):
        find_clips(tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        find_clips(tmp_path / "absent")


def test_posters_beside_clips_are_no_clips(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    write_clip(tmp_path / "videos" / "a.mp4", [numbered(i) for i in range(3)])
    write_frames(tmp_path / "frames", ["0.png", "1.png"])
    for folder in (tmp_path, tmp_path / "videos"):
        Image.fromarray(numbered(0)).save(folder / "poster.jpg")
    assert [clip.name for clip in find_clips(tmp_path)] == ["frames", "videos/a.mp4"]
    assert [clip.name for clip in find_clips(tmp_path / "videos")] == ["a.mp4"]
    Image.fromarray(numbered(0)).save(tmp_path / "frames" / "2.png")
    assert [clip.name for clip in find_clips(tmp_path / "frames")] == ["frames"]


def test_a_damaged_clip_keeps_its_pace(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Evaluation shows the frame before in place of a bad one; training leaves it out."""
    path = write_clip(tmp_path / "a.mov", [numbered(5 * i) for i in range(6)], codec="mjpeg", pix_fmt="yuvj420p")
    overwrite_frames(path, [2, 3], lambda size: b"\0" * size)
    (clip,) = find_clips(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert [number_of(frame) for frame in clip_frames(clip, 48)] == [0, 5, 5, 5, 20, 25]
    assert f"{path}: 2 of its frames cannot be decoded" in caplog.text
    assert [number_of(frame) for frame in decode_clip(clip, 48, tmp_path / "cache")] == [0, 5, 20, 25]


def test_names_of_any_bytes(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    (tmp_path / "a").mkdir()
    write_clip(tmp_path / "a" / name, [numbered(i) for i in range(3)])
    (clip,) = find_clips(tmp_path / "a")
    assert clip.name == name and len(decode_clip(clip, 32, tmp_path / "cache")) == 3


def test_links_that_lead_back_are_entered_once(tmp_path: Path) -> None:
    write_frames(tmp_path / "data" / "b", ["a.png", "b.png"])
    write_frames(tmp_path / "elsewhere", ["a.png"])
    for name, target in {"self": ".", "again": "..", "a_link": "b", "outside": "../elsewhere"}.items():
        (tmp_path / "data" / name).symlink_to(target)
    assert [clip.name for clip in find_clips(tmp_path / "data")] == ["b", "outside"]


def test_what_a_run_writes_is_no_clip(tmp_path: Path) -> None:
    write_frames(tmp_path / "a", ["a.png", "b.png"])
    write_frames(tmp_path / "run" / "samples", ["1.png", "2.png"])
    assert [clip.name for clip in find_clips(tmp_path, [tmp_path / "run"])] == ["a"]


def test_people_of_voxceleb_are_known_by_their_folder(tmp_path: Path) -> None:
    for name in ("id00012/abc/00001.mp4", "id00015/abc/00001.mp4", "id00015/xyz/00001.mp4", "films/abc/00001.mp4"):
        (tmp_path / name).parent.mkdir(parents=True)
        write_clip(tmp_path / name, [numbered(1)])
    assert [clip.identity for clip in find_clips(tmp_path)] == ["00001.mp4", "id00012", "id00015", "id00015"]


def test_a_damaged_image_costs_its_frame_and_not_the_clip(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_frames(tmp_path / "a", ["1.png", "2.png", "3.png"])
    (tmp_path / "a" / "2.png").write_bytes(b"no image")
    (clip,) = find_clips(tmp_path)
    with caplog.at_level(logging.WARNING):
        frames = decode_clip(clip, 48, tmp_path / "cache")
    assert [number_of(frame) for frame in frames] == [0, 2]
    assert "frame left out: " in caplog.text and "2.png" in caplog.text


@pytest.mark.parametrize("left", [0, 7, 500])
def test_decoded_frames_that_are_cut_off_are_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, left: int
) -> None:
    write_frames(tmp_path / "a", ["1.png", "2.png"])
    (clip,) = find_clips(tmp_path)
    whole = np.array(decode_clip(clip, 48, tmp_path / "cache"))
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:left])
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(decode_clip(clip, 48, tmp_path / "cache"), whole)
    assert file.name in caplog.text and "made anew" in caplog.text
