from pathlib import Path

import numpy as np
import pytest

from cbtalk.media.video_reader import Frame, open_video
from tests.helpers.videos import write_clip

TELL = {  # kinds that tell their own length, and a codec
    ".mkv": "libx264",
    ".webm": "libvpx",
    ".avi": "mpeg4",
    ".flv": "flv",
    ".ts": "libx264",
    ".ogv": "libvpx",
    ".wmv": "wmv2",
    ".gif": "gif",
    ".apng": "apng",
    ".mp4": "libx264",
}


def write(path: Path) -> Path:
    images = [np.random.default_rng(i).integers(0, 256, (48, 64, 3), dtype=np.uint8) for i in range(40)]
    codec = TELL[path.suffix]
    pix_fmt = {"gif": "rgb8", "apng": "rgb24"}.get(codec, "yuv420p")
    movflags = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    return write_clip(path, images, codec=codec, pix_fmt=pix_fmt, container_options=movflags)


@pytest.mark.parametrize("suffix", sorted(TELL))
def test_what_is_there_is_read_and_the_rest_is_missed(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}")
    with open_video(path) as reader:
        assert reader.info.warnings == ()
        assert sum(isinstance(frame, Frame) for frame in reader) == 40
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10 + 1])
    with open_video(path) as reader:
        (warning,) = reader.info.warnings
        found = [frame for frame in reader if isinstance(frame, Frame)]
    assert str(path) in warning and "cut off" in warning and "\n" not in warning
    assert 12 <= len(found) < 40
    assert [frame.pts for frame in found] == sorted(frame.pts for frame in found)
