from typing import Any

import pytest
import torch

from cbtalk.model.config import PRESETS
from cbtalk.model.openings import GAIN
from cbtalk.model.talker import Talker
from tests.helpers.talkers import MakeTalker, filled, tiny_talker


def make_tiny(**changes: Any) -> Talker:
    """A tiny talker, its options changed as asked."""
    talker = tiny_talker(**changes)
    with torch.no_grad():  # jacobians far from singular, which would amplify every rounding
        talker.motion_estimator.kp_detector.jacobian.weight.mul_(0.1)
        if talker.config.opening_maps:  # as small as trained ones
            for parameter in talker.net_g.opening_enc.parameters():
                parameter.div_(GAIN)
    return talker


@pytest.fixture
def tiny() -> MakeTalker:
    """Makes a tiny talker, as `make_tiny`."""
    return make_tiny


@pytest.fixture(scope="session")
def paper() -> Talker:
    """The paper's model with the golden weights; a test that changes it must change it back."""
    torch.manual_seed(0)
    return filled(PRESETS["paper"])
