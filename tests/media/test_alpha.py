from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from av.video.stream import VideoStream

from cbtalk.media.video_reader import Frame, open_video


@pytest.mark.parametrize(("codec", "suffix"), [("libvpx", ".webm"), ("libvpx-vp9", ".webm"), ("libvpx-vp9", ".mkv")])
def test_alpha_of_webm_is_laid_over_white(tmp_path: Path, codec: str, suffix: str) -> None:
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[..., 0] = 200
    pixels[:, :32, 3] = 255
    path = tmp_path / f"a{suffix}"
    with av.open(path, "w") as container:
        stream = cast(VideoStream, container.add_stream(codec, rate=25, width=64, height=64, pix_fmt="yuva420p"))
        stream.codec_context.bit_rate = 10**6
        stream.options = {"auto-alt-ref": "0"}
        stream.metadata["alpha_mode"] = "1"
        for _ in range(5):
            image = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format="yuva420p")
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    with open_video(path) as reader:
        frames = list(reader)
    assert len(frames) == 5
    for frame in frames:
        assert isinstance(frame, Frame)
        assert np.abs(frame.image[8:56, 8:24].astype(int) - (200, 0, 0)).max() < 25
        assert frame.image[8:56, 40:56].min() > 245


def test_the_reproduction(shared: Path) -> None:
    with open_video(shared / "cases" / "media" / "al_vp9.webm") as reader:
        frames = list(reader)
    assert len(frames) == 8
    for frame in frames:
        assert isinstance(frame, Frame) and frame.image[125, 250].min() > 245
