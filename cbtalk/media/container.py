"""Media files opened with FFmpeg, and their packets."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from cbtalk.errors import InputError
from cbtalk.media.kinds import CONTIGUOUS, DEMUXERS

_MOST_READ_ERRORS = 16  # in a row, before the rest of the file is given up
_MOST_BETWEEN = 256  # bytes between two packets of a contiguous file, its own headers

Packet: TypeAlias = "av.Packet[Any]"


def open_container(path: Path) -> InputContainer:
    """Open a media file with FFmpeg, restricted to single local files. Raises InputError where it is none."""
    options = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file"}
    try:
        # "file:" keeps names such as "http:x.mp4" from being taken for addresses.
        return av.open(f"file:{path}", mode="r", options=options, metadata_errors="replace")
    except (av.FFmpegError, ValueError) as error:
        raise InputError(f"{path}: is not a video, or damaged or cut off; get it again or convert it to MP4") from error


def container_kind(container: InputContainer) -> str:
    """FFmpeg's first name of the container, as `kinds` has it: "mov", "matroska", "mpegts"."""
    return container.format.name.partition(",")[0]


def main_video(container: InputContainer) -> VideoStream | None:
    """The stream that holds the video, None where there is none."""
    # Cover art of music files is a video stream of one image.
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    return best if best in streams else next(iter(streams), None)  # type: ignore[return-value]


def packets(container: InputContainer) -> Iterator["Packet | str"]:
    """The packets of the main video and sound with something in them, in the order of the file.

    For an unreadable place the reason, which completes the sentence "the frame ..."; then what follows it.
    """
    wanted = [main_video(container), container.streams.best("audio")]
    contiguous = container_kind(container) in CONTIGUOUS
    failures, position, end = 0, 0, 0
    while failures < _MOST_READ_ERRORS:
        try:
            for packet in container.demux():
                if not packet.size:
                    continue  # it would end the decoding
                failures = 0
                if contiguous and packet.pos is not None:
                    if end and packet.pos > end + _MOST_BETWEEN:
                        yield "is missing from the file"
                    # Several packets in one block have its position.
                    end = packet.size + (end if packet.pos == position else packet.pos)
                    position = packet.pos
                if packet.stream in wanted:
                    yield packet
            return
        except av.FFmpegError as error:
            failures += 1
            yield f"cannot be read: {reason_of(error)}"


def reason_of(error: Exception) -> str:
    """FFmpeg's message, without numbers and names."""
    return getattr(error, "strerror", None) or str(error)
