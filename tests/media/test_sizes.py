"""Videos whose images change their size, as those of phones that are turned and of calls over bad lines."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from cbtalk.media.video_reader import Frame, open_video
from tests.helpers.videos import write_clip


def disc(width: int, height: int) -> NDArray[np.uint8]:
    """A white disc in the middle of black, half as wide as the shorter side."""
    rows, columns = np.mgrid[:height, :width]
    inside = np.hypot(rows - (height - 1) / 2, columns - (width - 1) / 2) < min(width, height) / 4
    return np.where(inside[..., None], 255, 0).astype(np.uint8).repeat(3, axis=2)


def write_webm(path: Path, sizes: list[tuple[int, int]]) -> None:
    """Five images of each size, each size from an encoder of its own, as a browser writes them."""
    with av.open(path, "w") as container:
        width, height = sizes[0]
        stream = container.add_stream("libvpx", rate=25, width=width, height=height, pix_fmt="yuv420p")
        container.start_encoding()
        for part, (width, height) in enumerate(sizes):
            encoder = av.CodecContext.create("libvpx", "w")
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"  # type: ignore[attr-defined]
            encoder.time_base, encoder.bit_rate = Fraction(1, 25), 10**6
            for index in range(6):
                frame = None
                if index < 5:
                    frame = av.VideoFrame.from_ndarray(disc(width, height)).reformat(format="yuv420p")
                    frame.pts, frame.time_base = 5 * part + index, Fraction(1, 25)
                for packet in encoder.encode(frame):  # type: ignore[attr-defined]
                    packet.stream, packet.time_base = stream, Fraction(1, 25)
                    container.mux(packet)


def write_ts(path: Path, sizes: list[tuple[int, int]]) -> None:
    parts = [write_clip(path.with_name("part.ts"), [disc(*size)] * 5).read_bytes() for size in sizes]
    path.write_bytes(b"".join(parts))


@pytest.mark.parametrize("suffix", [".webm", ".ts"])
@pytest.mark.parametrize("sizes", [[(64, 96), (96, 64)], [(160, 96), (64, 128)], [(128, 96), (64, 48), (256, 192)]])
def test_a_round_face_stays_round_and_in_the_middle(tmp_path: Path, suffix: str, sizes: list[tuple[int, int]]) -> None:
    path = tmp_path / f"a{suffix}"
    (write_webm if suffix == ".webm" else write_ts)(path, sizes)
    with open_video(path) as reader:
        frames = list(reader)
    assert len(frames) == 5 * len(sizes)
    width, height = sizes[0]
    expected = disc(width, height)[..., 0] > 127
    for frame in frames:
        assert isinstance(frame, Frame) and frame.image.shape == (height, width, 3)
        found = frame.image[..., 0] > 127
        assert np.abs(np.subtract(found.sum(0).max(), expected.sum(0).max())) <= 2
        assert np.abs(np.subtract(found.sum(1).max(), expected.sum(1).max())) <= 2
        assert (found ^ expected).mean() < 0.02
