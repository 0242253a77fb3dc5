"""The parts of a talker that a term of the objective teaches."""

from dataclasses import fields, replace

import torch

from cbtalk.train.data import Batch
from cbtalk.train.equivariance import ThinPlate
from cbtalk.train.losses import Draws, Objective
from cbtalk.train.sections import LossConfig, TrainConfig
from tests.helpers.talkers import tiny_talker


def test_the_source_under_the_last_flow_teaches_the_flow_and_nothing_else() -> None:
    talker = tiny_talker(source_pixels=True).train()
    size = talker.image_size
    source, driving = (torch.rand(2, 2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1).unbind(0)
    alone = LossConfig(**{field.name: float(field.name == "warped") for field in fields(LossConfig)})
    draws = Draws(ThinPlate(torch.eye(2, 3).expand(2, 2, 3), torch.zeros(2, 25)), torch.zeros(2, 3))
    losses = Objective(replace(TrainConfig(), loss=alone), None)(talker, Batch(source, driving, None), draws)
    assert losses.output.warped is not None
    assert losses.total.item() == (losses.output.warped - driving).abs().mean().item()
    losses.total.backward()
    taught = {name for name, one in talker.named_parameters() if one.grad is not None and one.grad.any()}
    assert any(name.startswith("motion_estimator.dense_motion_network") for name in taught)
    assert any(name.startswith("net_g.refine") for name in taught)
    assert not any(name.startswith(("net_g.generator", "net_g.fuse", "net_g.source_pixels")) for name in taught)
