"""The sound of one file carried over into another, packet by packet, beside the new images."""

import contextlib
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.filter import Graph

from cbtalk.errors import InputError
from cbtalk.media.container import open_container, packets
from cbtalk.media.files import check_readable
from cbtalk.media.timeline import Timeline

# Codecs that players of each container, browsers for MP4, are sure to play; all else is re-encoded to AAC.
_COPIED: dict[str, set[str]] = {
    ".mp4": {"aac", "mp3", "opus", "flac"},
    ".mov": {"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be"},
    ".mkv": {"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac", "vorbis", "mp2", "dts", "pcm_s16le", "pcm_s24le"},
}
_AAC_RATES = {8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000}
_AAC_FRAME = 1024  # samples
_MOST_DRIFT = 0.02  # seconds: more is filled with silence or cut out; less is the rounding of coarse clocks
_BITS_A_CHANNEL = 96_000  # a second: transparent for speech


def check_sound(path: Path) -> None:
    """Raise InputError where a file is missing, cannot be read, or holds no sound."""
    check_readable(path, "file with sound")
    with open_container(path) as container:
        if container.streams.best("audio") is None:
            raise InputError(f"{path}: holds no sound")


class AudioTrack:
    """Feeds the sound of `source` into `output`, copied where the container allows it, else re-encoded to AAC.

    Time stamps are on the clock that `VideoReader` gives the images of the same file, so that both stay in step.
    Sound before `start` seconds on that clock is left out, and what follows counts from there. Damaged packets are left
    out. `how` is "copied", "re-encoded to AAC", or None where the source has no usable sound.
    """

    how: str | None = None

    def __init__(
        self,
        source: Path,
        output: OutputContainer,
        suffix: str,
        *,
        start: Fraction = Fraction(0),
        copy: bool = True,
    ) -> None:
        """Add the audio stream to `output`, a container of the kind `suffix`; `copy` allows copying.

        Raises InputError for a bad source.
        """
        self._input = open_container(source)
        self._output, self._start = output, start
        self._packets: Iterator[av.Packet[AudioStream]] = iter(())
        self._waiting: av.Packet[AudioStream] | None = None
        self._last_dts: int | None = None
        self._encoder: _AacEncoder | None = None
        stream = self._input.streams.best("audio")
        if not isinstance(stream, AudioStream) or stream.codec_context is None or stream.time_base is None:
            return
        self._packets = self._demuxed(stream)
        name = stream.codec_context.codec.canonical_name
        # Raw AAC of broadcast streams carries its header in every packet instead of once.
        if copy and name in _COPIED[suffix] and (name != "aac" or stream.codec_context.extradata):
            self.how = "copied"
            self._target = output.add_stream_from_template(stream)
        else:
            self.how = "re-encoded to AAC"
            self._encoder = _AacEncoder(stream, output)

    def __enter__(self) -> Self:
        """Return the track itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the source."""
        self._input.close()

    def feed(self, until: Fraction) -> None:
        """Write the sound that starts before `until` seconds and was not written yet."""
        while (packet := self._waiting or next(self._packets, None)) is not None:
            self._waiting = packet
            if cast(int, packet.pts) * packet.time_base >= until:
                return
            self._waiting = None
            if self._encoder is None:
                packet.stream = self._target
                self._mux([packet])
            else:
                self._mux(self._encoder.encode(packet))

    def finish(self) -> None:
        """Write what the encoder still holds; the last call."""
        if self._encoder is not None:
            self._mux(self._encoder.flush())

    def _mux(self, packets: Iterable["av.Packet[AudioStream]"]) -> None:
        for packet in packets:
            # Matroska knows no time before 0: with the encoder's lead-in, all streams would be shifted by it.
            early = self._output.format.name == "matroska" and cast(int, packet.pts) < 0
            if not early and (self._last_dts is None or packet.dts is None or packet.dts > self._last_dts):
                self._last_dts = packet.dts
                self._output.mux(packet)

    def _demuxed(self, stream: AudioStream) -> Iterator["av.Packet[AudioStream]"]:
        """The packets of the source on the clock of the output; places that cannot be read are left out."""
        for packet in Timeline(self._input).placed(packets(self._input)):
            if isinstance(packet, str) or packet.stream is not stream:
                continue
            packet.pts = packet.pts if packet.pts is not None else packet.dts
            if packet.pts is None:
                continue
            packet.dts = packet.pts if packet.dts is None else packet.dts
            skipped = round(self._start / packet.time_base)
            packet.pts, packet.dts = packet.pts - skipped, packet.dts - skipped
            # One that begins before the start and ends behind it is kept: players skip what comes before time 0.
            if not skipped or packet.pts + (packet.duration or 0) > 0:
                yield packet


class _AacEncoder:
    """Packets of any codec in, packets of AAC out."""

    def __init__(self, source: AudioStream, output: OutputContainer) -> None:
        self._source = source
        self._target = _add_aac(output, source)
        self._graph: Graph | None = None
        self._shape: tuple[str, str, int] | None = None

    def encode(self, packet: "av.Packet[AudioStream]") -> Iterator["av.Packet[AudioStream]"]:
        """Re-encode one packet; a hole is left where it cannot be decoded."""
        frames: list[AudioFrame] = []
        with contextlib.suppress(av.FFmpegError, ValueError):
            frames = self._source.decode(packet)
        for frame in frames:
            shape = (frame.format.name, frame.layout.name, frame.sample_rate)
            if shape != self._shape:
                yield from self._drain(end=True)
                self._graph, self._shape = _to_aac_frames(frame, self._target), shape
            cast(Graph, self._graph).push(frame)
            yield from self._drain()

    def flush(self) -> Iterator["av.Packet[AudioStream]"]:
        """The end of the sound."""
        yield from self._drain(end=True)
        yield from self._target.encode(None)

    def _drain(self, *, end: bool = False) -> Iterator["av.Packet[AudioStream]"]:
        """Encode what the graph has ready; at the `end`, all that is left in it."""
        if self._graph is None:
            return
        if end:
            self._graph.push(None)
        with contextlib.suppress(av.BlockingIOError, av.EOFError):
            while True:
                yield from self._target.encode(cast(AudioFrame, self._graph.pull()))


def _add_aac(output: OutputContainer, source: AudioStream) -> AudioStream:
    rate = source.codec_context.sample_rate
    target = output.add_stream("aac", rate=rate if rate in _AAC_RATES else 48000)
    target.codec_context.layout = "mono" if source.codec_context.layout.nb_channels == 1 else "stereo"
    target.codec_context.bit_rate = _BITS_A_CHANNEL * target.codec_context.layout.nb_channels
    target.codec_context.time_base = Fraction(1, target.codec_context.sample_rate)
    return target


def _to_aac_frames(first: AudioFrame, target: AudioStream) -> Graph:
    """Sound like `first` in, frames for the AAC encoder out; holes become silence, so that the sound cannot drift."""
    context = target.codec_context
    wanted = (
        f"sample_fmts={context.format.name}:sample_rates={context.sample_rate}:channel_layouts={context.layout.name}"
    )
    graph = Graph()
    graph.link_nodes(
        graph.add_abuffer(
            sample_rate=first.sample_rate,
            format=first.format.name,
            layout=first.layout.name,
            time_base=first.time_base,
        ),
        graph.add("aresample", f"async=1:min_hard_comp={_MOST_DRIFT}"),
        graph.add("aformat", wanted),
        graph.add("asetnsamples", f"n={_AAC_FRAME}:p=0"),
        graph.add("abuffersink"),
    ).configure()
    return graph
