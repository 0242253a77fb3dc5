"""Changes of a motion that is known as a whole: it is cut, then smoothed, then made to loop."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from cbtalk.errors import InputError
from cbtalk.media.span import Span
from cbtalk.model.keypoints import Keypoints
from cbtalk.model.smooth import smooth
from cbtalk.options.render import Loop
from cbtalk.render.motion_file import Motion


def cut(path: Path, motion: Motion, span: Span) -> Motion:
    """The part of the motion file `path` that is shown within `span`, its times counted from the span's start.

    Raises InputError where the motion ends before the part starts.
    """
    if span == Span():
        return motion
    start, end = span.ticks(motion.time_base)
    if ends(motion) <= start:
        seconds = float(ends(motion) * motion.time_base)
        raise InputError(f"{path}: cannot start at {float(span.start):.2f} s: the motion ends at {seconds:.2f} s")
    times = [pts * motion.time_base for pts in motion.pts.tolist()]
    first = max(0, sum(span.begun(time) for time in times) - 1)
    behind = motion.frames - sum(span.over(time) for time in times)  # one behind the last
    if first >= behind:
        raise InputError(f"{path}: shows nothing from {float(span.start):.2f} s on for so short a time")
    pts = (motion.pts[first:behind] - start).clamp(min=0)
    pts[0] = 0 if span.begun(times[first]) else pts[0]
    shown_to = ends(motion) if behind == motion.frames else int(motion.pts[behind])
    shown_to = shown_to if end is None else min(shown_to, end)
    return replace(
        motion,
        keypoints=motion[slice(first, behind)],
        scenes=None if motion.scenes is None else motion.scenes[first:behind],
        pts=pts,
        last_duration=max(1, shown_to - start - int(pts[-1])),
    )


def smoothed(motion: Motion, seconds: float) -> Motion:
    """The motion smoothed with this time constant, each scene by itself; see `cbtalk.model.smooth`."""
    times = motion.pts.double() * float(motion.time_base)
    lengths = torch.tensor(motion.scenes_of(slice(None))).unique_consecutive(return_counts=True)[1].tolist()
    runs = zip(*(part.split(lengths) for part in (*motion.keypoints, times)), strict=True)
    smooth_runs = [smooth(Keypoints(value, jacobian), own, seconds) for value, jacobian, own in runs]
    return replace(motion, keypoints=Keypoints(*(torch.cat(parts) for parts in zip(*smooth_runs, strict=True))))


def looped(motion: Motion, loop: Loop, fade: float) -> Motion:
    """One period of the motion that a player can repeat without a jump.

    "ping-pong": forth and back, the turning frames once. "cross-fade": during its last `fade` seconds the motion goes
    over into its first `fade` seconds, behind which the period begins.

    Raises InputError where a motion is shorter than two cross-fades, or is to be cross-faded over scene cuts.
    """
    if loop == "cross-fade" and len(set(motion.scenes_of(slice(None)))) > 1:
        raise InputError("a motion with scene cuts cannot be cross-faded: take ping-pong, or a part of one scene")
    return _ping_pong(motion) if loop == "ping-pong" else _cross_faded(motion, fade)


def _ping_pong(motion: Motion) -> Motion:
    if motion.frames < 3:
        return motion
    places = torch.cat([torch.arange(motion.frames), torch.arange(motion.frames - 2, 0, -1)])
    there = motion.pts - motion.pts[0]
    back = 2 * there[-1] - there[1:-1].flip(0)
    return replace(
        motion,
        keypoints=Keypoints(*(part[places] for part in motion.keypoints)),
        scenes=None if motion.scenes is None else motion.scenes[places],
        pts=torch.cat([there, back]),
        last_duration=int(there[1]),
    )


def _cross_faded(motion: Motion, fade: float) -> Motion:
    first, end = int(motion.pts[0]), ends(motion)
    over = max(1, round(fade / motion.time_base))  # ticks that the cross-fade takes
    if end - first < 2 * over:
        seconds = float((end - first) * motion.time_base)
        raise InputError(
            f"a motion of {seconds:.2f} s is too short for a cross-fade of {fade} s: give a shorter --fade"
        )
    kept = motion.pts >= first + over
    pts = motion.pts[kept]
    part = ((pts - (end - over)).double() / over).clamp(0, 1)  # (T,): of the cross-fade that has passed
    weight = part.square() * (3 - 2 * part)  # sets in and ends gently
    beginning = _at(motion, pts - (end - over) + first)
    keypoints = [
        torch.lerp(own[kept], other, weight.float().view(-1, *[1] * (own.dim() - 1)))
        for own, other in zip(motion.keypoints, beginning, strict=True)
    ]
    scenes = None if motion.scenes is None else motion.scenes[kept]
    return replace(motion, keypoints=Keypoints(*keypoints), pts=pts - pts[0], scenes=scenes)


def _at(motion: Motion, times: Tensor) -> Keypoints:
    """The keypoints at times (T,) in ticks, straight between the frames and constant outside them."""
    after = torch.searchsorted(motion.pts, times).clamp(1, max(1, motion.frames - 1))
    before = (after - 1).clamp(min=0)
    after = after.clamp(max=motion.frames - 1)
    span = (motion.pts[after] - motion.pts[before]).clamp(min=1)
    weight = ((times - motion.pts[before]) / span).clamp(0, 1).float()
    return Keypoints(
        *(torch.lerp(part[before], part[after], weight.view(-1, *[1] * (part.dim() - 1))) for part in motion.keypoints)
    )


def ends(motion: Motion) -> int:
    """Ticks at which the last frame of a motion ends."""
    step = max(1, round(1 / (motion.average_rate * motion.time_base)))
    return int(motion.pts[-1]) + (motion.last_duration or step)
