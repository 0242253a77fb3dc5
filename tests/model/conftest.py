import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from cbtalk.model.config import PRESETS, TalkerConfig
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


def make_tiny(**changes: Any) -> Talker:
    """A tiny talker, evaluation mode, its options changed as asked; its parameters let every part matter."""
    talker = Talker(dataclasses.replace(TINY, **changes)).eval()
    weights.fill(talker.net_g)
    weights.fill(talker.motion_estimator)
    with torch.no_grad():  # jacobians far from singular, which would amplify every rounding
        talker.motion_estimator.kp_detector.jacobian.weight.mul_(0.1)
    return talker


@pytest.fixture
def tiny() -> MakeTalker:
    """Makes a tiny talker, as `make_tiny`."""
    return make_tiny


@pytest.fixture(scope="session")
def paper() -> Talker:
    """The paper's model with the golden weights; a test that changes it must change it back."""
    torch.manual_seed(0)
    talker = Talker(PRESETS["paper"]).eval()
    weights.fill(talker.net_g)
    weights.fill(talker.motion_estimator)
    return talker
