"""Annotations of VoxCeleb's kind: which person is where in which frames of a video.

Two published forms are read, and told apart by the suffix:

.csv: the table of first-order-motion's video-preprocessing, with the columns video_id, start, end, bbox, fps, width,
height and, where there are some, partition and person_id. Frames `start` up to `end` of a video of `fps` frames a
second show the person in the area bbox, left-top-right-bottom in px of an image of width x height.

.txt: VoxCeleb's own files, one for an utterance, in folders named after the video. After a header of lines
"Identity : id00012", "Reference : VIDEO" come rows FRAME X Y W H at 25 frames a second: in px of an image of 360
lines (VoxCeleb1) or in shares of the image (VoxCeleb2).
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cbtalk.errors import InputError

TXT_RATE = 25  # frames per second
VOXCELEB1_LINES = 360.0
_COLUMNS = ("video_id", "start", "end", "bbox", "fps", "width", "height")
_HEADER = ("identity", "reference")


class Box(NamedTuple):
    """From `time` (seconds) on; lengths in px of the image that the annotation speaks of."""

    time: float
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Annotation:
    """One person in a stretch of a video.

    boxes: one for the whole stretch, the area to show (a table); or one for each frame (a text file), which is the
    area to show in VoxCeleb2, and the face alone, `tight`, in VoxCeleb1. end: in seconds. width, height: of the image
    that the boxes lie in; a width of 0 stands for that of the video at this height.
    """

    video: str
    boxes: tuple[Box, ...]
    end: float
    width: float
    height: float
    tight: bool = False
    identity: str | None = None
    partition: str | None = None


def read_annotations(path: Path, videos: Iterable[str]) -> dict[str, list[Annotation]]:
    """The annotations in a file, or in the files of a folder, for the videos of these names (stems of their files).

    Raises InputError for a file that cannot be read or understood, with the line, and where there is no file.
    """
    wanted = frozenset(videos)
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    files = [file for file in files if file.suffix.lower() in (".csv", ".txt")]
    if not files or not path.exists():
        raise InputError(f"{path}: no annotations there; name a .csv or .txt file, or a folder of them")
    found: dict[str, list[Annotation]] = {}
    for file in files:
        # VoxCeleb has a million such files: those of absent videos are not opened.
        if file.suffix.lower() == ".txt" and path not in (file, file.parent) and file.parent.name not in wanted:
            continue
        for annotation in _read(file):
            if annotation.video in wanted:
                found.setdefault(annotation.video, []).append(annotation)
    return {video: sorted(of, key=lambda one: one.boxes[0].time) for video, of in found.items()}


def _read(file: Path) -> Iterator[Annotation]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as text: {error}; check the file of --annotations") from error
    if file.suffix.lower() == ".csv":
        yield from _table(file, text)
    else:
        yield _utterance(file, text)


def _table(file: Path, text: str) -> Iterator[Annotation]:
    rows = csv.DictReader(text.splitlines(), skipinitialspace=True)
    missing = [name for name in _COLUMNS if name not in (rows.fieldnames or ())]
    if missing:
        raise InputError(f"{file}: no column {missing[0]}; a table of annotations has {', '.join(_COLUMNS)}")
    for row in rows:
        try:
            yield _row(row)
        except (ValueError, TypeError, ZeroDivisionError, AttributeError) as error:
            raise InputError(f"{file}, line {rows.line_num}: is not a row of annotations; mend or remove it") from error


def _row(row: dict[str, str]) -> Annotation:
    rate, width, height = float(row["fps"]), float(row["width"]), float(row["height"])
    left, top, right, bottom = (float(number) for number in row["bbox"].split("-"))
    start, end = float(row["start"]) / rate, float(row["end"]) / rate
    box = Box(start, left, top, right, bottom)
    if not (0 <= start < end and left < right and top < bottom and width > 0 and height > 0):
        raise ValueError("nothing in it")
    video, _, owner = row["video_id"].partition("#")
    person = row.get("person_id") or owner
    return Annotation(
        video, (box,), end, width, height, identity=person or None, partition=row.get("partition") or None
    )


def _utterance(file: Path, text: str) -> Annotation:
    header: dict[str, str] = {}
    rows: list[tuple[float, ...]] = []
    for number, line in enumerate(text.splitlines(), 1):
        key, colon, value = line.partition(":")
        if not line.strip() or line.split()[0] == "FRAME":
            continue
        if colon:
            header[key.strip().lower()] = value.strip()
            continue
        try:
            frame, x, y, w, h = (float(part) for part in line.split())
        except ValueError as error:
            raise InputError(f"{file}, line {number}: is not FRAME X Y W H; mend or remove the file") from error
        rows.append((frame, x, y, w, h))
    absent = [name for name in _HEADER if not header.get(name)]
    if absent or not rows:
        what = f"no line {absent[0].capitalize()}" if absent else "no row FRAME X Y W H"
        raise InputError(f"{file}: {what}; it is not one of VoxCeleb's files: mend or remove it")
    shares = all(w <= 1 and h <= 1 for *_, w, h in rows)
    boxes = tuple(Box(frame / TXT_RATE, x, y, x + w, y + h) for frame, x, y, w, h in sorted(rows))
    end = boxes[-1].time + 1 / TXT_RATE
    width, height = (1.0, 1.0) if shares else (0.0, VOXCELEB1_LINES)
    return Annotation(header["reference"], boxes, end, width, height, tight=not shares, identity=header["identity"])
