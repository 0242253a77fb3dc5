"""The squares of a render: that of the source and that of the driving video, given or found by their faces."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cbtalk.errors import InputError
from cbtalk.faces import Face, Square, choose, cut, find_faces, fixed_square, frame, tracks_of
from cbtalk.media.crop import Crop, CropBox, center_square
from cbtalk.media.video_reader import BadFrame, open_video
from cbtalk.render.driving import square
from cbtalk.render.options import DrivingOptions, RenderOptions
from cbtalk.render.report import Report

Place = Crop | Square  # in a source: a crop that is given, or the square of a face

LOOKED_AT = 120  # frames of a driving video in which faces are looked for, at most


def source_picture(
    path: Path, image: NDArray[np.uint8], options: RenderOptions, size: int, report: Report
) -> NDArray[np.uint8]:
    """What the model sees of a source image (H, W, 3): (size, size, 3), the crop or the square of a face.

    Raises InputError where there is no face and no crop is given.
    """
    return picture_of(image, source_place(path, image, options, report), size)


def source_place(path: Path, image: NDArray[np.uint8], options: RenderOptions, report: Report) -> Place:
    """Where that is in the image; raises as `source_picture`."""
    if options.crop is not None:
        return options.crop
    faces = _faces(image)
    if not faces:
        raise InputError(f"{path}: no face is found; give its square by --crop x,y,size, or --crop centre")
    if len(faces) > 1:
        report.notes.append(f"{path}: {len(faces)} faces; animated is {_words(options.face)} (--face chooses another)")
    return frame(image, choose(faces, options.face))


def picture_of(image: NDArray[np.uint8], place: Place, size: int) -> NDArray[np.uint8]:
    """The pixels of a place in an image (H, W, 3), upright, as (size, size, 3)."""
    return cut(image, place, size) if isinstance(place, Square) else square(image, place, size)


def square_of(image: NDArray[np.uint8], place: Place) -> Square:
    """A place in an image (H, W, 3) as its square."""
    if isinstance(place, Square):
        return place
    x, y, side = center_square(image.shape[1], image.shape[0]) if place == "centre" else place
    return Square(x + side / 2, y + side / 2, side)


def with_crop(path: Path, options: DrivingOptions, report: Report) -> DrivingOptions:
    """The options with the square of the driving video in them: the one given, or that of a face over all frames.

    Raises InputError where there is no face and no crop is given.
    """
    if options.crop is not None:
        return options
    with closing(_faces_of_frames(path, options.max_frames)) as frames:
        tracks = tracks_of(frames)
    if not tracks:
        raise InputError(
            f"{path}: no face is found in the video; give its square, x,y,size or centre, by --driving-crop "
            "(--crop of cbtalk motion)"
        )
    longest = max(tracks, key=len)
    people = sum(len(track) > len(longest) / 4 for track in tracks)
    if options.face == "longest":
        chosen = longest
    else:
        face = choose([track[0] for track in tracks], options.face)
        chosen = next(track for track in tracks if track[0] is face)
    if people > 1:
        report.notes.append(
            f"{path}: {people} people; followed is {_words(options.face)} (--driving-face chooses another)"
        )
    found = fixed_square(chosen)
    side = round(found.side)
    return replace(options, crop=CropBox(round(found.x - side / 2), round(found.y - side / 2), side))


def _faces_of_frames(path: Path, limit: int | None) -> Generator[list[Face], None, None]:
    """The faces of some frames, evenly spread over the video."""
    with open_video(path) as reader:
        expected = min(number for number in (reader.info.frames, limit, 10**9) if number is not None)
        step = max(1, -(-expected // LOOKED_AT)) if expected < 10**9 else round(reader.info.average_rate)
        for number, picture in enumerate(reader):
            if limit is not None and number >= limit:
                return
            if number % step == 0 and not isinstance(picture, BadFrame):
                yield _faces(picture.image)


def _faces(image: NDArray[np.uint8]) -> list[Face]:
    return find_faces(torch.from_numpy(image).permute(2, 0, 1))


def _words(choice: object) -> str:
    """A choice of a face, as a report says it."""
    if isinstance(choice, str):
        return f"the one {choice} in view" if choice == "longest" else f"the {choice}"
    return f"number {choice} from the left" if isinstance(choice, int) else f"the one nearest to {choice}"
