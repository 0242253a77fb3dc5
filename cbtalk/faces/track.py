"""Faces of a video followed from frame to frame, and the one square that fits a face throughout."""

import statistics
from collections.abc import Iterable

from cbtalk.faces.detector import Face, overlap
from cbtalk.faces.framing import BOX_CENTRE, BOX_HEIGHT, Square

_SAME_FACE = 0.2  # intersection over union of a face and the last find of its track


def tracks_of(frames: Iterable[list[Face]]) -> list[list[Face]]:
    """The finds of each person, by the faces of each frame: a face continues the track that it overlaps most."""
    tracks: list[list[Face]] = []
    for faces in frames:
        free = list(tracks)
        for face in faces:
            best = max(free, key=lambda track: overlap(track[-1].box, face.box), default=None)
            if best is not None and overlap(best[-1].box, face.box) > _SAME_FACE:
                best.append(face)
                free = [track for track in free if track is not best]
            else:
                tracks.append([face])
    return tracks


def fixed_square(track: list[Face]) -> Square:
    """The upright square that frames a face over its track: medians, which a hand before the face does not move."""
    boxes = [face.box.tolist() for face in track]
    side = statistics.median(bottom - top for _, top, _, bottom in boxes) / BOX_HEIGHT
    x = statistics.median((left + right) / 2 for left, _, right, _ in boxes)
    y = statistics.median((top + bottom) / 2 for _, top, _, bottom in boxes)
    return Square(x + (0.5 - BOX_CENTRE[0]) * side, y + (0.5 - BOX_CENTRE[1]) * side, side)
