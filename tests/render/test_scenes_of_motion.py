"""A motion of several scenes is cut, smoothed and looped scene by scene."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from cbtalk.errors import InputError
from cbtalk.media.span import Span
from cbtalk.model.keypoints import Keypoints
from cbtalk.render.motion_changes import cut, looped, smoothed
from cbtalk.render.motion_file import Motion

PATH = Path("motion.safetensors")


def motion(scenes: list[int] | None, frames: int = 12) -> Motion:
    value = torch.randn(frames, 5, 2, generator=torch.Generator().manual_seed(3))
    keypoints = Keypoints(value, torch.eye(2).expand(frames, 5, 2, 2).contiguous())
    numbers = None if scenes is None else torch.tensor(scenes)
    return Motion(keypoints, torch.arange(frames) * 40, Fraction(1, 1000), Fraction(25), 40, numbers)


SCENES = [0] * 5 + [1] * 7


def test_scenes_are_smoothed_by_themselves() -> None:
    whole = motion(SCENES)
    found = smoothed(whole, 0.08)
    for rows in (slice(0, 5), slice(5, 12)):
        part = replace(whole, keypoints=whole[rows], pts=whole.pts[rows], scenes=None)
        torch.testing.assert_close(found[rows], smoothed(part, 0.08).keypoints, rtol=0, atol=0)
    assert not torch.equal(found.keypoints.value, smoothed(motion(None), 0.08).keypoints.value)


def test_a_part_keeps_the_scenes_of_its_frames() -> None:
    part = cut(PATH, motion(SCENES), Span.of(0.12, 0.16))
    assert part.scenes_of(slice(None)) == [0, 0, 1, 1]


def test_ping_pong_goes_back_through_the_scenes() -> None:
    assert looped(motion([0, 0, 1, 1], 4), "ping-pong", 0.5).scenes_of(slice(None)) == [0, 0, 1, 1, 1, 0]


def test_a_cross_fade_over_scene_cuts_is_refused() -> None:
    with pytest.raises(InputError, match="scene cuts"):
        looped(motion(SCENES), "cross-fade", 0.08)
    one = looped(motion([2] * 12), "cross-fade", 0.08)
    assert set(one.scenes_of(slice(None))) == {2} and one.frames == len(one.scenes_of(slice(None)))
