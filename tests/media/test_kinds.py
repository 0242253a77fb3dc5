"""Every kind of the one table is read by what renders, evaluates and trains."""

from pathlib import Path

import pytest
from PIL import Image

from cbtalk.media.clips import clip_frames, clip_rate, decode_clip, find_clips
from cbtalk.media.images import read_image
from cbtalk.media.kinds import DEMUXERS, IMAGE_SUFFIXES, VIDEO_KINDS, VIDEO_SUFFIXES
from cbtalk.media.video_reader import Frame, open_video
from tests.helpers.videos import numbered, quadrants, write_clip

MADE_WITH = {  # suffix: codec, pixel format, FFmpeg's muxer where the suffix does not tell it
    ".webm": ("libvpx", "yuv420p", None),
    ".avi": ("mpeg4", "yuv420p", None),
    ".divx": ("mpeg4", "yuv420p", "avi"),
    ".gif": ("gif", "rgb8", None),
    ".apng": ("apng", "rgb24", None),
    ".mpg": ("mpeg2video", "yuv420p", None),
    ".mpeg": ("mpeg2video", "yuv420p", None),
    ".vob": ("mpeg2video", "yuv420p", None),
    ".m2v": ("mpeg2video", "yuv420p", None),
    ".m1v": ("mpeg1video", "yuv420p", None),
    ".flv": ("flv", "yuv420p", None),
    ".wmv": ("wmv2", "yuv420p", None),
    ".asf": ("wmv2", "yuv420p", None),
    ".ogv": ("libvpx", "yuv420p", "ogg"),
    ".ogg": ("libvpx", "yuv420p", "ogg"),
    ".ogm": ("libvpx", "yuv420p", "ogg"),
    ".ivf": ("libvpx", "yuv420p", None),
    ".obu": ("libsvtav1", "yuv420p", None),
    ".mxf": ("mpeg2video", "yuv420p", None),
    ".dv": ("dvvideo", "yuv420p", None),
    ".h265": ("libx265", "yuv420p", "hevc"),
    ".265": ("libx265", "yuv420p", "hevc"),
    ".hevc": ("libx265", "yuv420p", None),
    ".264": ("libx264", "yuv420p", "h264"),
    ".y4m": ("wrapped_avframe", "yuv420p", None),
    ".qt": ("libx264", "yuv420p", "mov"),
    ".f4v": ("libx264", "yuv420p", "f4v"),
    ".mts": ("libx264", "yuv420p", "mpegts"),
}
FRAMES = 6


def make(path: Path) -> Path:
    codec, pix_fmt, muxer = MADE_WITH.get(path.suffix.lower(), ("libx264", "yuv420p", None))
    size = (720, 576) if codec == "dvvideo" else (64, 64)
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    images = [numbered(i, *size) for i in range(FRAMES)]
    return write_clip(path, images, codec=codec, pix_fmt=pix_fmt, options=options, muxer=muxer)


@pytest.mark.parametrize("suffix", [*sorted(VIDEO_SUFFIXES), ".MP4", ".Ts"])
def test_videos(tmp_path: Path, suffix: str) -> None:
    path = make(tmp_path / f"clip{suffix}")
    with open_video(path) as reader:
        frames = list(reader)
    assert len(frames) == FRAMES and all(isinstance(frame, Frame) for frame in frames)
    (clip,) = find_clips(tmp_path)
    assert clip.name == path.name
    assert len(list(clip_frames(clip, 32))) == FRAMES
    assert len(decode_clip(clip, 32, tmp_path / "cache")) == FRAMES
    assert 1 <= clip_rate(clip) <= 100


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_images(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    for index in range(3):
        Image.fromarray(quadrants()).save(folder / f"{index}{suffix}")
    assert read_image(folder / f"0{suffix}").shape == (48, 64, 3)
    (clip,) = find_clips(tmp_path)
    assert clip.name == "clip" and len(list(clip_frames(clip, 32))) == 3


def test_a_suffix_belongs_to_one_kind() -> None:
    suffixes = [suffix for kind in VIDEO_KINDS.values() for suffix in kind]
    assert len(suffixes) == len(set(suffixes)) == len(VIDEO_SUFFIXES)
    assert not VIDEO_SUFFIXES & IMAGE_SUFFIXES
    assert len(DEMUXERS.split(",")) == len(set(DEMUXERS.split(",")))
