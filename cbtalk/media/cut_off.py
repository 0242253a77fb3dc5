"""Files whose end is missing, told by what their containers say of their own length."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def is_cut_off(path: Path, kind: str) -> bool:
    """Whether the end of a media file is missing; `kind` is FFmpeg's name of the container.

    False where the container does not tell, as live recordings do not.
    """
    check = _CHECKS.get(kind)
    if check is None:
        return False
    with path.open("rb") as file:
        return check(file, os.fstat(file.fileno()).st_size)


def _boxes(file: BinaryIO, end: int) -> bool:
    """MP4 and MOV: the last top-level box is longer than what is left of the file."""
    offset = 0
    while offset < end:
        file.seek(offset)
        header = file.read(16)
        if len(header) < 8 or not header[4:8].isalnum():
            return False  # something else was appended to the file; FFmpeg passes over it
        size = int.from_bytes(header[:4], "big")
        if size == 1:
            size = int.from_bytes(header[8:16], "big")
        if size < 8:
            return False  # 0: the box goes on to the end of the file
        offset += size
    return offset > end


def _elements(file: BinaryIO, end: int) -> bool:
    """Matroska and WebM: likewise the last top-level element, of which the segment says its length or not."""
    offset = 0
    while offset < end:
        file.seek(offset)
        header = file.read(12)
        identity = 9 - header[0].bit_length()
        if identity > 4 or len(header) <= identity:
            return False
        length = 9 - header[identity].bit_length()
        size = int.from_bytes(header[identity : identity + length], "big") & (1 << 7 * length) - 1
        if length > 8 or size == (1 << 7 * length) - 1:
            return False  # not known when the header was written
        offset += identity + length + size
    return offset > end


def _chunks(file: BinaryIO, end: int) -> bool:
    """AVI: RIFF chunks, each with its length in front; those from the second on hold what is beyond 1 GiB."""
    offset = 0
    while offset < end:
        file.seek(offset)
        header = file.read(8)
        if header[:4] != b"RIFF" or len(header) < 8:
            return False
        size = int.from_bytes(header[4:], "little")
        if size == 0:
            return True  # filled in at the end of the recording
        offset += 8 + size + size % 2
    return offset > end + 1


def _tags(file: BinaryIO, end: int) -> bool:
    """FLV: after the last tag comes its length."""
    if end < 13 + 15:
        return False
    file.seek(end - 4)
    size = int.from_bytes(file.read(4), "big")
    if not 11 <= size <= end - 13:
        return True
    file.seek(end - 4 - size)
    header = file.read(4)
    return header[0] & 0x1F not in (8, 9, 18) or int.from_bytes(header[1:], "big") != size - 11


def _transport_packets(file: BinaryIO, end: int) -> bool:
    """MPEG-TS: packets of 188 bytes, or of 192 in cameras' files."""
    return end % 188 != 0 and end % 192 != 0


def _pages(file: BinaryIO, end: int) -> bool:
    """Ogg: the last page is marked as such."""
    file.seek(max(0, end - 2**17))  # two of the longest pages
    tail = file.read()
    place = tail.rfind(b"OggS\0")
    return place >= 0 and place + 5 < len(tail) and not tail[place + 5] & 4


def _trailer(mark: bytes) -> Callable[[BinaryIO, int], bool]:
    """GIF and APNG: the mark of the end."""

    def check(file: BinaryIO, end: int) -> bool:
        file.seek(max(0, end - 64))
        return mark not in file.read().rstrip(b"\0\r\n")[-len(mark) :]

    return check


def _asf(file: BinaryIO, end: int) -> bool:
    """ASF and WMV: the file's size in its header, 0 in broadcasts."""
    properties = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
    head = file.read(2**16)
    place = head.find(properties)
    return place >= 0 and int.from_bytes(head[place + 40 : place + 48], "little") > end


_CHECKS: dict[str, Callable[[BinaryIO, int], bool]] = {
    "mov": _boxes,
    "matroska": _elements,
    "avi": _chunks,
    "flv": _tags,
    "mpegts": _transport_packets,
    "ogg": _pages,
    "gif": _trailer(b";"),
    "apng": _trailer(b"IEND\xaeB`\x82"),
    "asf": _asf,
}
