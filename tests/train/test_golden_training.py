"""The published training step's own numbers: every loss, and the norm of every gradient."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cbtalk.model.discriminator import PatchDiscriminator
from cbtalk.model.talker import Talker
from cbtalk.pretrained.vgg import VggFeatures
from cbtalk.train.adversarial import discriminator_losses
from cbtalk.train.data import Batch
from cbtalk.train.equivariance import ThinPlate
from cbtalk.train.losses import Draws, Objective
from cbtalk.train.perceptual import PerceptualLoss
from cbtalk.train.sections import LossConfig, TrainConfig
from tests.golden import weights

GOLDEN = Path(weights.__file__).parent
EXPECTED = json.loads((GOLDEN / "training_a.json").read_text())
NEGLIGIBLE_GRADIENT = 1e-9
VGG19 = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256)}
VGG19 |= dict.fromkeys((12, 14, 16), (256, 256)) | {19: (256, 512)}
VGG19 |= dict.fromkeys((21, 23, 25, 28), (512, 512))


@cache
def training_step(dtype: torch.dtype) -> tuple[dict[str, float], dict[str, float]]:
    """The losses under their golden names, and the gradient norms of the total (in float64 alone)."""
    talker, discriminator = Talker(TrainConfig().model), PatchDiscriminator(TrainConfig().model)
    weights.fill(talker.net_g)
    weights.fill(talker.motion_estimator)
    weights.fill(discriminator, "net_d.")
    talker.to(dtype).train()
    discriminator.to(dtype).train().requires_grad_(False)
    source = weights.image("a.source.0").to(dtype).unsqueeze(0)
    driving = weights.image("a.driving.0").to(dtype).unsqueeze(0)
    with_gradients = dtype == torch.float64
    losses = objective()(talker, Batch(source, driving, None), golden_draws(), discriminator)
    if with_gradients:
        losses.total.backward()
    figures = {name: value.item() for name, value in losses.terms.items()}
    figures["total_without_perceptual"] = losses.total.item()
    with torch.no_grad():
        real, fake = discriminator_losses(discriminator(driving), discriminator(losses.output.prediction))
    figures |= {"disc_real": real.item(), "disc_fake": fake.item()}
    named = talker.named_parameters() if with_gradients else ()
    return figures, {name: parameter.grad.norm().item() for name, parameter in named if parameter.grad is not None}


def objective() -> Objective:
    return Objective(replace(TrainConfig(), loss=LossConfig(perceptual=0.0)), None)


def golden_transform() -> ThinPlate:
    theta = torch.eye(2, 3, dtype=torch.float64) + 0.05 * torch.from_numpy(weights.normals("a.theta", (1, 2, 3)))
    return ThinPlate(theta, 0.005 * torch.from_numpy(weights.normals("a.control_params", (1, 25))))


def golden_draws() -> Draws:
    return Draws(golden_transform(), torch.zeros(1, 3))


def assert_losses(figures: dict[str, float], tolerance: float) -> None:
    assert figures.keys() == EXPECTED["losses"].keys()
    wrong = {
        name: (figures[name], expected)
        for name, expected in EXPECTED["losses"].items()
        if abs(figures[name] - expected) > tolerance * abs(expected)
    }
    assert not wrong


@pytest.mark.slow
def test_every_loss_in_float32() -> None:
    assert_losses(training_step(torch.float32)[0], 5e-4)


@pytest.mark.slow
def test_every_loss_in_float64() -> None:
    assert_losses(training_step(torch.float64)[0], 1e-8)


@pytest.mark.slow
def test_every_gradient_norm_in_float64() -> None:
    norms = training_step(torch.float64)[1]
    expected = {name: norm for name, norm in EXPECTED["grad_norms"].items() if norm > NEGLIGIBLE_GRADIENT}
    assert len(expected) > 500 and expected.keys() <= norms.keys()
    wrong = {name: (norms[name], norm) for name, norm in expected.items() if abs(norms[name] - norm) > 1e-6 * norm}
    assert not wrong


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), pytest.param(torch.float64, 1e-7, marks=pytest.mark.slow)]
)
def test_perceptual_terms(dtype: torch.dtype, tolerance: float) -> None:
    loss = PerceptualLoss(VggFeatures(vgg19()), (1, 2, 4, 8)).to(dtype)
    prediction, target = (weights.image(f"perceptual.{name}").to(dtype)[None] for name in ("prediction", "target"))
    with torch.no_grad():
        levels = loss.terms(loss.features(prediction), loss.features(target))
    actual = np.array([[term.item() for term in level] for level in levels])
    expected = np.load(GOLDEN / "variants.npz")["perceptual.terms"]
    assert np.abs(actual / expected - 1).max() < tolerance


def vgg19() -> dict[str, Tensor]:
    found = {}
    for index, (in_channels, out_channels) in VGG19.items():
        shapes = {"weight": (out_channels, in_channels, 3, 3), "bias": (out_channels,)}
        for leaf, shape in shapes.items():
            found[f"{index}.{leaf}"] = torch.from_numpy(weights.tensor(f"vgg.{index}.{leaf}", shape)).float()
    return found
