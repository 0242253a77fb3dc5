from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from cbtalk.errors import OutputError
from cbtalk.media.encoder import check_encoder
from cbtalk.media.video_writer import VideoWriter
from tests.helpers.videos import numbered


def nvenc_opens() -> bool:
    try:
        check_encoder("h264_nvenc")
    except OutputError:
        return False
    return True


no_nvenc = pytest.mark.skipif(nvenc_opens(), reason="the GPU has NVENC, which is then not refused")
needs_nvenc = pytest.mark.skipif(not nvenc_opens(), reason="needs a GPU with NVENC")


def writer(path: Path, **options: Any) -> VideoWriter:
    return VideoWriter(path, width=256, height=256, rate=Fraction(25), time_base=Fraction(1, 25), **options)


def test_x264_needs_no_check() -> None:
    check_encoder("auto")
    check_encoder("libx264")


@no_nvenc
def test_an_encoder_that_cannot_be_opened_is_refused_with_the_reason_of_ffmpeg(tmp_path: Path) -> None:
    before = av.logging.get_level()
    with pytest.raises(OutputError, match="h264_nvenc") as failure:
        check_encoder("h264_nvenc")
    reason = str(failure.value).partition("(")[2].partition(")")[0]
    # FFmpeg's log line, not the number of an error that stands for many: without a driver "Cannot load libcuda.so.1".
    assert reason and reason != "Operation not permitted" and "\n" not in str(failure.value)
    assert av.logging.get_level() == before
    with pytest.raises(OutputError, match="h264_nvenc"), writer(tmp_path / "a.mp4", encoder="h264_nvenc"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_that_this_ffmpeg_lacks_is_told_by_name() -> None:
    with pytest.raises(OutputError, match="has no encoder of this name"):
        check_encoder("h264_unheard_of")  # type: ignore[arg-type]


@needs_nvenc
def test_nvenc_writes_what_it_is_given(tmp_path: Path) -> None:
    images = [numbered(i, 256, 256) for i in range(20)]
    with writer(tmp_path / "a.mp4", encoder="h264_nvenc") as video:
        for pts, image in enumerate(images):
            video.write(image, pts)
    with av.open(tmp_path / "a.mp4") as container:
        frames = list(container.decode(video=0))
    assert [frame.time for frame in frames] == [pytest.approx(i / 25) for i in range(20)]
    for frame, image in zip(frames, images, strict=True):
        assert np.abs(frame.to_ndarray(format="rgb24").astype(int) - image).mean() < 4
