"""A folder of clips: video files or folders of frames, of any names, read into uint8 arrays of one size."""

import hashlib
import logging
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cbtalk.atomic import atomic_path
from cbtalk.errors import InputError
from cbtalk.media.crop import center_square, crop_resize
from cbtalk.media.images import read_image
from cbtalk.media.kinds import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from cbtalk.media.video_reader import BadFrame, Frame, open_video

logger = logging.getLogger(__name__)

FOLDER_RATE = Fraction(25)
COMPARED = 8


@dataclass(frozen=True)
class Clip:
    """One video file, or one folder of frames."""

    name: str  # path below the root, with forward slashes; the root's own name for the root
    path: Path
    identity: str  # whose clip it is, by the name's convention

    def __str__(self) -> str:
        """Its path, for messages."""
        return str(self.path)


def identity_of(name: str) -> str:
    """Whose clip it is, by its path below the root.

    The text before the first ``__`` or ``#`` of the clip's own name; without either, the folder that is named as
    VoxCeleb's people are (id10270/video/00001.mp4); else the clip's own name: an identity of its own.
    """
    *folders, own = name.split("/")
    if mark := re.search(r"__|#", own):
        return own[: mark.start()]
    return next((folder for folder in folders if re.fullmatch(r"id\d+", folder)), own)


def find_clips(root: Path, without: Collection[Path] = ()) -> list[Clip]:
    """All clips below ``root`` in the order of their names: each video file, and each folder of images.

    Video files are those of the kinds that `render` reads. Images beside videos, or in ``root`` beside the folders of
    clips, are posters: they are left out with a notice. Links are followed, and each folder is entered once.

    Args:
        without: folders that are not entered.

    Raises:
        InputError: ``root`` is no folder, or holds no clip.
    """
    if not root.is_dir():
        raise InputError(f"{root}: not a folder of clips")
    paths: list[Path] = []
    for folder, files in _folders(root, without):
        suffixes = {name: Path(name).suffix.lower() for name in files if not name.startswith(".")}
        videos = [folder / name for name, suffix in suffixes.items() if suffix in VIDEO_SUFFIXES]
        images = sum(suffix in IMAGE_SUFFIXES for suffix in suffixes.values())
        if videos and images:
            logger.warning("left out: %d images beside the videos of %s", images, folder)
        paths += videos or ([folder] if images else [])
    if len(paths) > 1 and root in paths:
        paths.remove(root)
        logger.warning("left out: images beside the clips of %s", root)
    if not paths:
        raise InputError(f"{root}: no video file and no folder of frames in it")
    names = [root.resolve().name if path == root else path.relative_to(root).as_posix() for path in paths]
    clips = [Clip(name, path, identity_of(name)) for name, path in zip(names, paths, strict=True)]
    return sorted(clips, key=lambda clip: clip.name)


def _folders(root: Path, without: Collection[Path]) -> Iterator[tuple[Path, list[str]]]:
    """Each folder from ``root`` down, once, and the names of its files; links to folders come after the folders."""
    seen = {path.resolve() for path in without}
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        if (real := folder.resolve()) in seen:
            continue
        seen.add(real)
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        inside = [folder / entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
        waiting = [path for path in inside if path.is_symlink()] + waiting
        waiting += [path for path in reversed(inside) if not path.is_symlink()]
        yield folder, [entry.name for entry in entries if entry.is_file()]


def natural_order(name: str) -> list[tuple[int, int | str]]:
    """Sort key that puts ``frame_2`` ahead of ``frame_10``."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.findall(r"\d+|\D+", name)]


def frame_files(clip: Clip) -> list[Path]:
    """The images of a frame folder in time order."""
    files = (path for path in clip.path.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted((path for path in files if not path.name.startswith(".")), key=lambda path: natural_order(path.name))


def clip_frames(clip: Clip, size: int) -> Iterator[np.ndarray]:
    """The frames of a clip as uint8 (size, size, 3): centre square, resized with anti-aliasing.

    In place of one that cannot be decoded comes the one before it, so that the clip keeps its pace.
    """
    last = None
    for image in _images(clip, size):
        last = last if image is None else image
        if last is not None:
            yield last


def good_frames(clip: Clip, size: int) -> Iterator[np.ndarray]:
    """As `clip_frames`, without the frames that cannot be decoded. Raises InputError where none can."""
    found = False
    for image in _images(clip, size):
        if image is not None:
            found = True
            yield image
    if not found:
        raise InputError(f"{clip.path}: no frame in it")


def _images(clip: Clip, size: int) -> Iterator[np.ndarray | None]:
    """As `clip_frames`, None for a frame that cannot be decoded; what is wrong with a video is logged."""
    if clip.path.is_dir():
        yield from (read_frame(path, size) for path in frame_files(clip))
        return
    with open_video(clip.path) as reader:
        for warning in reader.info.warnings:
            logger.warning("%s", warning)
        bad = 0
        for frame in reader:
            bad += isinstance(frame, BadFrame)
            yield square(frame.image, size) if isinstance(frame, Frame) else None
        if bad:
            logger.warning("%s: %d of its frames cannot be decoded", clip.path, bad)


def read_frame(path: Path, size: int) -> np.ndarray | None:
    """An image of a frame folder as `clip_frames` has it; None, and a warning, where it cannot be read."""
    try:
        return square(read_image(path), size)
    except InputError as error:
        logger.warning("frame left out: %s", error)
        return None


def clip_rate(clip: Clip) -> Fraction:
    """Frames a second of a clip on the average; a folder of frames counts as 25."""
    if clip.path.is_dir():
        return FOLDER_RATE
    with open_video(clip.path) as reader:
        return reader.info.average_rate


def square(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 (H, W, 3) -> the centre square as uint8 (size, size, 3)."""
    height, width = image.shape[:2]
    return crop_resize(image, center_square(width, height), size)


def cache_name(clip: Clip, size: int) -> str:
    """File name that changes when the clip's files do (their sizes and times) or the image size does."""
    files = frame_files(clip) if clip.path.is_dir() else [clip.path]
    digest = hashlib.sha256(os.fsencode(f"{clip.path.resolve()}|{size}"))
    for path in files:
        stat = path.stat()
        digest.update(os.fsencode(f"|{path.name}|{stat.st_size}|{stat.st_mtime_ns}"))
    return f"{size}_{digest.hexdigest()[:24]}.npy"


def decode_clip(clip: Clip, size: int, cache: Path) -> np.memmap:
    """All frames of a clip, uint8 (T, size, size, 3), mapped from a file under ``cache`` that is written once.

    Raises:
        InputError: the clip cannot be read, or has no frame.
    """
    path = cache / cache_name(clip, size)
    decoded = decoded_before(path)
    if decoded is not None:
        return decoded
    cache.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        count = 0
        _write_header(file, (count, size, size, 3))
        for image in good_frames(clip, size):
            file.write(image.tobytes())
            count += 1
        file.seek(0)
        _write_header(file, (count, size, size, 3))
    return map_frames(path)


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """That of an .npy file of uint8; numpy leaves room in it for any number in the first place of the shape."""
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def map_frames(path: Path) -> np.memmap:
    """Decoded frames as `decode_clip` returns them, from their file."""
    mapped: np.memmap = np.load(path, mmap_mode="c")  # private to this process: torch takes writable arrays only
    return mapped


def decoded_before(path: Path) -> np.memmap | None:
    """The frames that were decoded before; None where there are none, or damaged ones, which are told of."""
    try:
        return map_frames(path)
    except FileNotFoundError:
        return None
    except (ValueError, EOFError, OSError) as error:
        logger.warning("%s: decoded frames are damaged and made anew (%s)", path, error)
        return None


def mean_change(frames: np.ndarray) -> float:
    """The movement of a clip, uint8 (T, H, W, 3): mean difference of a few frames from the first, in levels of 255."""
    return float(np.mean([change(frames[0], frames[index]) for index in compared(len(frames))]))


def compared(length: int) -> list[int]:
    """The frames that `mean_change` compares with the first one of so many."""
    numbers: list[int] = np.linspace(0, length - 1, COMPARED + 1).round().astype(int)[1:].tolist()
    return numbers


def change(first: np.ndarray, later: np.ndarray) -> float:
    """Mean difference of two frames, uint8 (H, W, 3), in levels of 255."""
    return float(np.abs(later.astype(np.int16) - first).mean())
