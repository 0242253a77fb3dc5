"""Faces of a video followed from frame to frame, and the one square that fits a face throughout."""

import statistics
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from cbtalk.faces.detector import Face, overlap
from cbtalk.faces.framing import Square, around

_SAME_FACE = 0.2  # intersection over union of a face and the last find of its track
_SAME_SIZE = 4.0  # ratio of the areas of one person's boxes in two tracks, at most


class Find(NamedTuple):
    """A face in a frame of a video."""

    time: float  # of the frame, in seconds
    face: Face

    @property
    def box(self) -> Tensor:
        """The face's."""
        return self.face.box


class HasBox(Protocol):
    """A face, or what holds one."""

    @property
    def box(self) -> Tensor:
        """(4,): left, top, right, bottom."""


F = TypeVar("F", bound=HasBox)


def tracks_of(frames: Iterable[Sequence[F]], *, grown: float = 1.0) -> list[list[F]]:
    """The finds of each person, by the faces of each frame: a face continues the track that it overlaps most.

    Boxes are compared `grown` to a multiple of their size, for frames so far apart that a face moves by its own width.
    """
    tracks: list[list[F]] = []
    for faces in frames:
        free = list(tracks)
        for face in faces:
            near = [overlap(_grown(track[-1].box, grown), _grown(face.box, grown)) for track in free]
            best = max(range(len(free)), key=near.__getitem__, default=None)
            if best is not None and near[best] > _SAME_FACE:
                free.pop(best).append(face)
            else:
                tracks.append([face])
    return tracks


def people_of(frames: Iterable[Sequence[Find]], *, grown: float = 1.0) -> list[list[Find]]:
    """The finds of each person in time order, the one longest in view first.

    Tracks of about one size, of which one ends before the other begins, are taken for one person who was lost and found
    again.
    """
    people: list[list[list[Find]]] = []
    for track in sorted(tracks_of(frames, grown=grown), key=len, reverse=True):
        same = next((person for person in people if all(_may_be_one(track, other) for other in person)), None)
        if same is None:
            people.append([track])
        else:
            same.append(track)
    joined = [sorted(chain.from_iterable(tracks), key=lambda find: find.time) for tracks in people]
    return sorted(joined, key=len, reverse=True)


def fixed_square(track: Iterable[Face]) -> Square:
    """The upright square that frames a face over its track: medians, which a hand before the face does not move."""
    return Square(*(statistics.median(values) for values in zip(*(around(face)[:3] for face in track), strict=True)))


def _grown(box: Tensor, times: float) -> Tensor:
    """A box (4,) of a multiple of the size about the same centre."""
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * times
    return torch.cat((centre - half, centre + half))


def _may_be_one(a: list[Find], b: list[Find]) -> bool:
    """Whether two tracks do not overlap in time and are of about one size."""
    sizes = [statistics.median(find.face.area for find in track) for track in (a, b)]
    return (a[-1].time < b[0].time or b[-1].time < a[0].time) and max(sizes) <= _SAME_SIZE * min(sizes)
