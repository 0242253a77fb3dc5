"""Training clips planned in a scene: stretches of one person each, whom a fixed square holds."""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, groupby, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from cbtalk.faces import Face, Square, fixed_square, tracks_of
from cbtalk.prepare.options import PrepareOptions
from cbtalk.prepare.sightings import Scene
from cbtalk.prepare.stretch import Reason, Stretch

LONGEST_GAP = 1.0  # seconds for which a face may be lost from sight, by a hand or a turn of the head
_SMOOTHED = 5  # looks: of a box the median over as many, which single mistakes do not move
_BEYOND = 0.03  # sides by which a box may leave its square
_SMALLEST, _LARGEST = 0.7, 1.4  # of the median height, that a face has in its square
_INTRUDES = 0.2  # of another face that lies in the square
_NEAR = 2  # looks before and after an intrusion that are given up with it
_OUTSIDE = 0.08  # sides by which a square may leave the image, whose edge is repeated there


class Sighting(NamedTuple):
    """A person's face in a frame that is shown from `time` on, and the boxes (4,) of the other people's."""

    time: float
    face: Face
    others: Sequence[Tensor] = ()


def plan_scene(scene: Scene, size: tuple[int, int], options: PrepareOptions) -> list[Stretch]:
    """The stretches of a scene in an image of this size (width, height): clips to be cut, and what is left out."""
    number_of = {id(face): number for number, look in enumerate(scene.looks) for face in look.faces}
    tracks = tracks_of(look.faces for look in scene.looks)
    people = [(track, [number_of[id(face)] for face in track]) for track in tracks]
    found = []
    for track, numbers in people:
        # One find alone is more often a mistake of the detector than a person.
        others = [other for other, _ in people if other is not track and len(other) > 1]
        boxes: dict[int, list[Tensor]] = {}
        for face in chain.from_iterable(others):
            boxes.setdefault(number_of[id(face)], []).append(face.box)
        for run in _without_gaps(scene, track, numbers, boxes):
            end = scene.end if run[-1].time == scene.looks[-1].time else run[-1].time
            found += plan_track(run, end, size, options)
    return sorted([*found, *_faceless(scene)], key=lambda stretch: stretch.start)


def plan_track(run: Sequence[Sighting], end: float, size: tuple[int, int], options: PrepareOptions) -> list[Stretch]:
    """The stretches of one person's sightings without a gap, of which the last ends at `end` (seconds)."""
    faces = _smoothed([sighting.face for sighting in run])
    times = [*(sighting.time for sighting in run), end]
    found = []
    for alone, first, last in _parts(_alone(run, faces)):
        if not alone:
            found.append(Stretch(times[first], times[last], reason=Reason.SEVERAL))
            continue
        while first < last:
            until = _held_until(faces, times, first, last, options)
            seen = faces[first : min(until + 1, len(faces))]
            others = [box for sighting in run[first : until + 1] for box in sighting.others]
            square = fixed_square(seen)
            stretch = Stretch(times[first], times[until], square, statistics.median(_height(face) for face in seen))
            found.append(judged(stretch, size, options, crowded=any(_intrudes(box, square) for box in others)))
            first = until
    return [stretch for stretch in found if stretch.seconds > 0]


def judged(stretch: Stretch, size: tuple[int, int], options: PrepareOptions, *, crowded: bool = False) -> Stretch:
    """A stretch with the reason against it that is known before it is cut, if there is one."""
    reason = None
    assert stretch.face is not None and stretch.square is not None
    if stretch.face < options.least_face:
        reason = Reason.SMALL
    elif stretch.seconds < options.min_seconds:
        reason = Reason.SHORT
    elif crowded:
        reason = Reason.SEVERAL
    elif _outside(stretch.square, size) > _OUTSIDE * stretch.square.side:
        reason = Reason.EDGE
    return replace(stretch, reason=reason)


def longest_part(seconds: float, options: PrepareOptions) -> float:
    """The length of a clip that begins a stretch, so that the clips of the stretch become alike in length."""
    return seconds / max(1, math.ceil(seconds / options.max_seconds))


def _without_gaps(
    scene: Scene, track: Sequence[Face], numbers: Sequence[int], others: dict[int, list[Tensor]]
) -> Iterator[list[Sighting]]:
    """The sightings of a track, without those between which it is lost for long; shorter gaps are interpolated."""
    looks = scene.looks
    run = [Sighting(looks[numbers[0]].time, track[0], others.get(numbers[0], ()))]
    for (before, first), (after, second) in pairwise(zip(numbers, track, strict=True)):
        if looks[after].time - looks[before].time > LONGEST_GAP:
            yield run
            run = []
        else:
            span = looks[after].time - looks[before].time
            for number in range(before + 1, after):
                share = (looks[number].time - looks[before].time) / span
                between = Face(torch.lerp(first.box, second.box, share), 0.0, first.points)
                run.append(Sighting(looks[number].time, between, others.get(number, ())))
        run.append(Sighting(looks[after].time, second, others.get(after, ())))
    yield run


def _smoothed(faces: Sequence[Face]) -> list[Face]:
    """The faces with boxes that are medians over their neighbours in time."""
    boxes = torch.stack([face.box for face in faces])
    reach = _SMOOTHED // 2
    windows = [boxes[max(0, i - reach) : i + reach + 1] for i in range(len(boxes))]
    return [face._replace(box=window.quantile(0.5, dim=0)) for face, window in zip(faces, windows, strict=True)]


def _alone(run: Sequence[Sighting], faces: Sequence[Face]) -> list[bool]:
    """Whether nobody else is in the square of the face, then and shortly before and after."""
    crowded = [
        any(_intrudes(box, fixed_square([face])) for box in sighting.others)
        for sighting, face in zip(run, faces, strict=True)
    ]
    return [not any(crowded[max(0, i - _NEAR) : i + _NEAR + 1]) for i in range(len(crowded))]


def _parts(flags: Sequence[bool]) -> Iterator[tuple[bool, int, int]]:
    """Runs of equal flags: (flag, first, where the next run begins)."""
    for flag, group in groupby(range(len(flags)), key=lambda i: flags[i]):
        numbers = list(group)
        yield flag, numbers[0], numbers[-1] + 1


def _held_until(faces: Sequence[Face], times: Sequence[float], first: int, last: int, options: PrepareOptions) -> int:
    """The end of a fixed square's hold on the face from `first` on, at most `last`: at least the next sighting."""
    longest = longest_part(times[last] - times[first], options) + 1e-6
    low, high = first + 1, last
    while low < high:
        middle = (low + high + 1) // 2
        if times[middle] - times[first] <= longest and _is_held(faces[first : middle + 1]):
            low = middle
        else:
            high = middle - 1
    return low


def _is_held(faces: Sequence[Face]) -> bool:
    """Whether the faces lie in the one square that fits them throughout, and keep their size."""
    square = fixed_square(list(faces))
    boxes = torch.stack([face.box for face in faces]).double()
    heights = (boxes[:, 3] - boxes[:, 1]) / (boxes[:, 3] - boxes[:, 1]).median()
    half = (0.5 + _BEYOND) * square.side
    low = boxes.new_tensor([square.x - half, square.y - half])
    inside = (boxes[:, :2] >= low).all() and (boxes[:, 2:] <= low + 2 * half).all()
    return bool(inside and heights.min() >= _SMALLEST and heights.max() <= _LARGEST)


def _height(face: Face) -> float:
    return float(face.box[3] - face.box[1])


def _intrudes(box: Tensor, square: Square) -> bool:
    """Whether a good part of another face's box lies in the square."""
    centre, half = box.new_tensor([square.x, square.y]), square.side / 2
    inner = (torch.minimum(box[2:], centre + half) - torch.maximum(box[:2], centre - half)).clamp_min(0).prod()
    return bool(inner > _INTRUDES * (box[2:] - box[:2]).prod())


def _outside(square: Square, size: tuple[int, int]) -> float:
    """The pixels by which a square leaves an image of this size, on the side where it does so most."""
    half = square.side / 2
    return max(half - square.x, half - square.y, square.x + half - size[0], square.y + half - size[1], 0.0)


def _faceless(scene: Scene) -> Iterator[Stretch]:
    """Stretches in which nobody is seen for longer than a face may be lost from sight."""
    times = [*(look.time for look in scene.looks), scene.end]
    for empty, first, last in _parts([not look.faces for look in scene.looks]):
        if empty and times[last] - times[first] > LONGEST_GAP:
            yield Stretch(times[first], times[last], reason=Reason.NO_FACE)
