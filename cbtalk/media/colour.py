"""High dynamic range and wide colour brought to what an ordinary screen shows: BT.709 primaries, sRGB values.

SDR is taken as sRGB (IEC 61966-2-1), HLG and PQ as ITU-R BT.2100 defines them. Reference white is that of ITU-R
BT.2408: 75 % of the HLG signal, 203 cd/m2 of PQ. HLG is shown with a system gamma of 1, which BT.2100 gives for a
screen of 330 cd/m2. What is brighter than white is rolled off, with its hue kept; colours outside BT.709 are clipped.
"""

import io
import tempfile
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import av
import numpy as np
from av.filter import Graph
from numpy.typing import NDArray

Array = NDArray[np.float64]
Matrix = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]

# Numbers of H.273.
_BT2020, _P3 = 9, (11, 12)
PQ, HLG = 16, 18

_D65 = (0.3127, 0.3290)
_PRIMARIES: dict[int, Matrix] = {  # (x, y) of red, green and blue
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    _BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    **dict.fromkeys(_P3, ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))),
}
_WHITE_HLG = 0.75  # of the signal
_WHITE_PQ = 203  # cd/m2
_KNEE = 0.8  # of white, in light: what is below is shown as it is
_NODES = 65  # a side of the table: within 5 levels of the formulas in the darkest channel of a pure colour, else 1


class Signal(NamedTuple):
    """The meaning of R'G'B' values of a frame: H.273 numbers of primaries and transfer function."""

    primaries: int
    transfer: int

    @property
    def is_ordinary(self) -> bool:
        """Whether the values may be shown as they are. BT.601's primaries hardly differ from BT.709's."""
        return self.transfer not in (PQ, HLG) and self.primaries not in (_BT2020, *_P3)


def signal_of(frame: av.VideoFrame) -> Signal:
    """The colours that the tags of a frame name; HLG and PQ without primaries are BT.2020."""
    primaries, transfer = int(frame.color_primaries), int(frame.color_trc)
    if transfer in (PQ, HLG) and primaries not in _PRIMARIES:
        primaries = _BT2020
    return Signal(primaries, transfer)


def to_srgb(values: Array, signal: Signal) -> Array:
    """R'G'B' values (..., 3) in [0, 1] of a signal as sRGB values in [0, 1] of BT.709 primaries."""
    light = np.maximum(_linear(values, signal.transfer) @ _to_bt709(signal.primaries).T, 0)
    if signal.transfer in (PQ, HLG):
        brightest = np.maximum(light.max(axis=-1, keepdims=True), 1e-9)
        light = light * (_rolled_off(brightest) / brightest)
    light = np.minimum(light, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def _linear(values: Array, transfer: int) -> Array:
    """Signal to light, white being 1."""
    if transfer == PQ:
        return _pq(values) / _WHITE_PQ
    if transfer == HLG:
        return _hlg(values) / _hlg(np.array(_WHITE_HLG))
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _pq(values: Array) -> Array:
    """BT.2100's EOTF of PQ: signal in [0, 1] to cd/m2."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    root = values ** (1 / m2)
    return 10000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)


def _hlg(values: Array) -> Array:
    """BT.2100's inverse OETF of HLG: signal to light of the scene, both in [0, 1]."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)


def _rolled_off(light: Array) -> Array:
    """The same up to the knee, then ever flatter towards 1."""
    room = 1 - _KNEE
    return np.where(light <= _KNEE, light, 1 - room * np.exp(-(np.maximum(light, _KNEE) - _KNEE) / room))


def _to_bt709(primaries: int) -> Array:
    """(3, 3): linear RGB of H.273 primaries to that of BT.709; unknown ones are taken for it."""
    return np.linalg.inv(_to_xyz(_PRIMARIES[1])) @ _to_xyz(_PRIMARIES.get(primaries, _PRIMARIES[1]))


def _to_xyz(primaries: Matrix) -> Array:
    """(3, 3): linear RGB to CIE XYZ (SMPTE RP 177); white is D65."""
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in primaries]).T
    x, y = _D65
    return columns * np.linalg.solve(columns, np.array([x / y, 1, (1 - x - y) / y]))


class ToSrgb:
    """FFmpeg's 3-D lookup of one signal: 16-bit planar RGB frames in, the same with sRGB values out."""

    def __init__(self, signal: Signal) -> None:
        self.signal = signal
        self._graph: Graph | None = None
        self._shape = (0, 0)

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Convert a frame of the format gbrp16le, of any size."""
        if self._graph is None or self._shape != (frame.width, frame.height):
            self._graph, self._shape = self._built(frame), (frame.width, frame.height)
        self._graph.push(frame)
        return cast(av.VideoFrame, self._graph.pull())

    def _built(self, frame: av.VideoFrame) -> Graph:
        graph = Graph()
        with tempfile.TemporaryDirectory() as folder:  # FFmpeg reads the table while the graph is configured
            table = Path(folder) / "table.cube"
            table.write_bytes(cube(self.signal))
            lookup: Any = graph.add("lut3d", file=str(table), interp="tetrahedral")
            source = graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
            )
            graph.link_nodes(source, lookup, graph.add("buffersink")).configure()
        return graph


@lru_cache(maxsize=2)
def cube(signal: Signal) -> bytes:
    """`to_srgb` of a signal as a table in the .cube format, in which red runs fastest."""
    axis = np.linspace(0, 1, _NODES)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
    values = to_srgb(np.stack([red, green, blue], axis=-1).reshape(-1, 3), signal)
    text = io.BytesIO(f"LUT_3D_SIZE {_NODES}\n".encode())
    text.seek(0, io.SEEK_END)
    np.savetxt(text, values, fmt="%.6f")
    return text.getvalue()
