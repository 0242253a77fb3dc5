import itertools
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream
from numpy.typing import NDArray

from cbtalk.media.colour import HLG, PQ, Signal, to_srgb
from cbtalk.media.video_reader import Frame, open_video

SRGB = Signal(1, 13)
COLOURS = np.array(
    [(220, 40, 40), (40, 180, 60), (50, 60, 200), (224, 172, 140), (128, 128, 128), (30, 30, 30), (200, 60, 190)]
)
# ITU-R BT.2087 and SMPTE EG 432-1: linear BT.709 to BT.2020 and to P3-D65.
TO_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
TO_P3 = np.array([[0.8225, 0.1775, 0], [0.0332, 0.9668, 0], [0.0171, 0.0724, 0.9105]])
MATRIX = {1: np.eye(3), 9: TO_2020, 11: TO_P3, 12: TO_P3}

Array = NDArray[np.float64]


def to_light(srgb: Array) -> Array:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def encode_sdr(light: Array) -> Array:
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def encode_hlg(light: Array) -> Array:
    """BT.2100 table 5, white at 75 %."""
    scene = light * 0.26496256
    return np.where(
        scene <= 1 / 12, np.sqrt(3 * scene), 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    )


def encode_pq(light: Array) -> Array:
    """BT.2100 table 4, white at 203 cd/m2."""
    y = (light * 203 / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


ENCODE = {HLG: encode_hlg, PQ: encode_pq, 1: encode_sdr, 13: encode_sdr, 14: encode_sdr}
SIGNALS = [Signal(*pair) for pair in itertools.product((9, 11, 12), (1, HLG, PQ))] + [Signal(9, 14), Signal(1, HLG)]


def encoded(colours: Array, signal: Signal) -> Array:
    return ENCODE[signal.transfer](to_light(colours) @ MATRIX[signal.primaries].T)


@pytest.mark.parametrize("signal", SIGNALS, ids=str)
def test_colours_below_the_knee_come_back(signal: Signal) -> None:
    found = to_srgb(encoded(COLOURS / 255, signal), signal) * 255
    np.testing.assert_allclose(found, COLOURS, atol=1)


@pytest.mark.parametrize("transfer", [HLG, PQ])
def test_highlights_are_rolled_off_in_order(transfer: int) -> None:
    grey = to_srgb(np.linspace(0, 1, 500)[:, None].repeat(3, axis=1), Signal(9, transfer))
    np.testing.assert_allclose(grey, grey[:, :1].repeat(3, axis=1), atol=1e-3)  # grey stays grey
    assert grey.min() == 0 and grey.max() <= 1 and (np.diff(grey[:, 0]) > -1e-9).all()
    white = to_srgb(np.full((1, 3), {HLG: 0.75, PQ: 0.58}[transfer]), Signal(9, transfer))
    assert 0.93 < white.min() <= white.max() < 0.99  # room is left for what is brighter


def write_video(path: Path, values: Array, signal: Signal, pix_fmt: str, codec: str) -> None:
    """One image of vertical stripes of R'G'B' values (N, 3), tagged; matrix BT.2020 or BT.709, limited range."""
    kr, kb = (0.2627, 0.0593) if signal.primaries == 9 else (0.2126, 0.0722)
    red, green, blue = values.T
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    planes = [16 + 219 * luma, 128 + 224 * (blue - luma) / (2 - 2 * kb), 128 + 224 * (red - luma) / (2 - 2 * kr)]
    bits = 12 if "12" in pix_fmt else 10 if "10" in pix_fmt else 8
    width, height = 32 * len(values), 32
    # With B-frames, x265 takes the decoding time of a single image from memory that nobody has written.
    options = {"x265-params": "bframes=0"} if codec == "libx265" else {}
    with av.open(path, "w") as container:
        stream = cast(
            VideoStream,
            container.add_stream(codec, rate=25, width=width, height=height, pix_fmt=pix_fmt, options=options),
        )
        frame = av.VideoFrame(width, height, pix_fmt)
        for plane, levels in zip(frame.planes, planes, strict=True):
            stripe = plane.width // len(values)
            row = (levels * 2 ** (bits - 8)).round().repeat(stripe)
            kind = np.dtype(np.uint8 if bits == 8 else "<u2")
            data = np.zeros((plane.height, plane.line_size // kind.itemsize), kind)
            data[:, : plane.width] = row
            plane.update(data.tobytes())
        tags: list[VideoCodecContext | av.VideoFrame] = [stream.codec_context, frame]
        for tagged in tags:
            tagged.colorspace = 9 if signal.primaries == 9 else 1
            tagged.color_primaries, tagged.color_trc, tagged.color_range = signal.primaries, signal.transfer, 1
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


FORMATS = [
    ("a.mkv", "ffv1", "yuv420p10le"),
    ("a.mkv", "ffv1", "yuv444p12le"),
    ("a.mov", "prores_ks", "yuv422p10le"),
    ("a.mkv", "ffv1", "yuv420p"),
]


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), FORMATS)
@pytest.mark.parametrize("signal", SIGNALS, ids=str)
def test_videos_of_other_colours_are_read_in_bt709(
    tmp_path: Path, signal: Signal, name: str, codec: str, pix_fmt: str
) -> None:
    write_video(tmp_path / name, encoded(COLOURS / 255, signal), signal, pix_fmt, codec)
    with open_video(tmp_path / name) as reader:
        frame = next(iter(reader))
    assert isinstance(frame, Frame)
    found = frame.image[16, 16::32].astype(int)
    worst = 16 if pix_fmt == "yuv420p" else 8  # ten bits of PQ are a little coarse, and eight much
    assert np.abs(found - COLOURS).max() <= worst, found.tolist()


@pytest.mark.parametrize("name", ["h_hlg.mov", "h_2020sdr.mp4"])
def test_the_reproductions_show_the_colours_of_the_plain_video(shared: Path, name: str) -> None:
    images = []
    for file in (name, "off.mkv"):
        with open_video(shared / "cases" / "media" / file) as reader:
            frame = next(iter(reader))
        assert isinstance(frame, Frame)
        images.append(frame.image.astype(int))
    patches = [(y, x) for y in (90, 160) for x in (32, 96, 160, 224)]
    assert max(np.abs(images[0][place] - images[1][place]).max() for place in patches) <= 8


def test_hlg_from_a_phone_s_encoder(tmp_path: Path) -> None:
    """HEVC, whose tags lie in the bitstream, and a plain video beside it."""
    signal = Signal(9, HLG)
    write_video(tmp_path / "a.mov", encoded(COLOURS / 255, signal), signal, "yuv420p10le", "libx265")
    with open_video(tmp_path / "a.mov") as reader:
        frame = next(iter(reader))
    assert isinstance(frame, Frame)
    assert np.abs(frame.image[16, 16::32].astype(int) - COLOURS).max() <= 12
