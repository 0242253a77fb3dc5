"""Clips in WebDataset's shards: uncompressed tar files in which each clip is a folder of images."""

import io
import logging
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from cbtalk.dataset.record import Measure, Record
from cbtalk.errors import InputError
from cbtalk.media.clips import natural_order, square
from cbtalk.media.images import decode_image
from cbtalk.media.kinds import IMAGE_SUFFIXES

logger = logging.getLogger(__name__)

SUFFIX = ".tar"
Pieces = list[tuple[str, int, int]]  # name of an image, its offset in the file, its bytes


class Shard:
    """As `Kind`; the places are int64 (2, T): offset and bytes of each image."""

    def survey(self, path: Path, size: int, cache: Path) -> list[Record]:
        """As `Kind.survey`."""
        clips = list(_clips(path, size))
        if not clips:
            raise InputError(f"{path}: holds no folder of images, as which a shard has a clip; see cbtalk shards")
        return clips

    def read(self, path: Path, places: bytes, size: int, cache: Path, frames: Sequence[int]) -> np.ndarray:
        """As `Kind.read`."""
        offsets, lengths = np.frombuffer(places, dtype=np.int64).reshape(2, -1)
        return np.stack([_image(path, int(offsets[number]), int(lengths[number]), size) for number in frames])


def _clips(path: Path, size: int) -> Iterator[Record]:
    folders: dict[str, Pieces] = {}
    for member in members(path):
        place = PurePosixPath(member.name)
        if member.isreg() and place.suffix.lower() in IMAGE_SUFFIXES and len(place.parts) > 1:
            folders.setdefault(str(place.parent), []).append((place.name, member.offset_data, member.size))
    for name, pieces in folders.items():
        measure, places = Measure(), []
        for image, offset, length in sorted(pieces, key=lambda piece: natural_order(piece[0])):
            try:
                measure.add(_image(path, offset, length, size))
                places.append((offset, length))
            except InputError as error:
                logger.warning("frame left out: %s/%s: %s", name, image, error)
        if places:
            yield measure.record(name, np.array(places, dtype=np.int64).T.tobytes())
        else:
            logger.warning("left out: %s: no frame of %s can be read", path, name)


def members(path: Path) -> Iterator[tarfile.TarInfo]:
    """The members of a shard, in its order; of one that is damaged or cut off, what comes before, and a warning.

    Raises InputError where it is no tar file.
    """
    read = False
    try:
        with tarfile.open(path, "r:", encoding="utf-8", errors="surrogateescape") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # of which it would keep every one
                read = True
                yield member
    except (tarfile.TarError, OSError) as error:
        if not read:
            raise InputError(f"{path}: is no tar file that is not compressed: {error}") from error
        logger.warning("%s: is damaged or cut off (%s); what comes before is used", path, error)


def _image(path: Path, offset: int, length: int, size: int) -> np.ndarray:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return square(decode_image(io.BytesIO(data), path), size)
