"""The hinge losses of the patch discriminator and the weight that balances them with reconstruction."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cbtalk.model.blocks import full_precision
from cbtalk.train import exchange

GRADIENT_OFFSET = 1e-4


def generator_loss(fake_scores: Tensor) -> Tensor:
    """-mean of the scores (B, 1, h, w) of generated images."""
    return -full_precision(fake_scores).mean()


def discriminator_losses(real_scores: Tensor, fake_scores: Tensor) -> tuple[Tensor, Tensor]:
    """Hinge losses of the scores (B, 1, h, w) of real and of generated images."""
    return F.relu(1 - full_precision(real_scores)).mean(), F.relu(1 + full_precision(fake_scores)).mean()


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last_weight: Tensor, scale: float) -> Tensor:
    """scale * clamp(|d reconstruction / d w| / |d adversarial / d w|, 0, 1), constant; w: its last weight.

    The losses are those of the whole batch, of which each process knows its share.
    """
    (of_reconstruction,) = torch.autograd.grad(reconstruction, last_weight, retain_graph=True)
    (of_adversarial,) = torch.autograd.grad(adversarial, last_weight, retain_graph=True)
    exchange.average([of_reconstruction, of_adversarial])
    ratio = of_reconstruction.norm() / (of_adversarial.norm() + GRADIENT_OFFSET)
    return scale * ratio.clamp(0, 1).detach()
