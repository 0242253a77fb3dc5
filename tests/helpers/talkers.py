"""Talkers that take milliseconds, and one of the paper's size, with weights that follow from their names."""

import dataclasses
from collections.abc import Callable
from typing import Any

from cbtalk.model.config import TalkerConfig
from cbtalk.model.talker import Talker
from tests.golden import weights

# The smallest talker that has every part: what is tested with it does not depend on widths.
TINY = TalkerConfig(
    image_size=64,
    keypoints=4,
    keypoint_expansion=8,
    dense_expansion=8,
    hourglass_blocks=2,
    hourglass_max=32,
    nf=32,
    ch_mult=(1, 1, 2),
    residual_blocks=1,
    motion_codes=30,
    motion_layers=1,
    motion_hidden=16,
    appearance_codes=30,
    appearance_dim=32,
    appearance_layers=2,
    heads=4,
    discriminator_nf=8,
)

MakeTalker = Callable[..., Talker]


def filled(config: TalkerConfig) -> Talker:
    """A talker in evaluation mode, its parameters such that each matters (tests/golden/weights.py)."""
    talker = Talker(config).eval()
    weights.fill(talker.net_g)
    weights.fill(talker.motion_estimator)
    return talker


def tiny_talker(**changes: Any) -> Talker:
    """That of `TINY`, its options changed as asked."""
    return filled(dataclasses.replace(TINY, **changes))
