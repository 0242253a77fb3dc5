"""Training clips planned by annotations of a video."""

import torch

from cbtalk.faces import Face, Square
from cbtalk.faces.framing import BOX_CENTRE, BOX_HEIGHT
from cbtalk.prepare.annotations import Annotation, Box
from cbtalk.prepare.options import PrepareOptions
from cbtalk.prepare.plan import Sighting, judged, longest_part, plan_track
from cbtalk.prepare.sightings import INTERVAL
from cbtalk.prepare.stretch import Stretch


def plan_annotation(annotation: Annotation, size: tuple[int, int], options: PrepareOptions) -> list[Stretch]:
    """The stretches of an annotation in a video of this size (width, height); nobody looks for faces."""
    down = size[1] / annotation.height
    across = size[0] / annotation.width if annotation.width else down
    boxes = [
        Box(time, left * across, top * down, right * across, bottom * down)
        for time, left, top, right, bottom in annotation.boxes
    ]
    if len(boxes) == 1:
        return _of_area(boxes[0], annotation.end, size, options)
    sightings = [_sighting(boxes[0], annotation.tight)]
    for box in boxes:
        if box.time >= sightings[-1].time + INTERVAL:
            sightings.append(_sighting(box, annotation.tight))
    return plan_track(sightings, annotation.end, size, options)


def _of_area(area: Box, end: float, size: tuple[int, int], options: PrepareOptions) -> list[Stretch]:
    """Stretches of about one length that show an area, of which what lies out of the image is left away."""
    width, height = size
    left, right = max(0.0, area.left), min(float(width), area.right)
    top, bottom = max(0.0, area.top), min(float(height), area.bottom)
    side = max(right - left, bottom - top, 1.0)
    # The area is not always a square: the square around it is moved into the image where it leaves it.
    x = _within((left + right) / 2, side, width)
    y = _within((top + bottom) / 2, side, height)
    length = longest_part(end - area.time, options)
    starts = [area.time + number * length for number in range(round((end - area.time) / length))]
    square, face = Square(x, y, side), BOX_HEIGHT * side
    return [judged(Stretch(start, start + length, square, face), size, options) for start in starts]


def _within(centre: float, side: float, length: int) -> float:
    return min(max(centre, side / 2), length - side / 2) if side <= length else length / 2


def _sighting(box: Box, tight: bool) -> Sighting:
    """A face in its box, or in the middle of the area to show, where training clips have it."""
    time, left, top, right, bottom = box
    if not tight:
        x, y = left + BOX_CENTRE[0] * (right - left), top + BOX_CENTRE[1] * (bottom - top)
        half = BOX_HEIGHT * (bottom - top) / 2
        left, top, right, bottom = x - half, y - half, x + half, y + half
    return Sighting(time, Face(torch.tensor([left, top, right, bottom]), 1.0, torch.zeros(5, 2)))
