"""The generator's objective: every term of spec section 4, weighted and summed."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cbtalk.model.blocks import full_precision, without_autocast
from cbtalk.model.discriminator import PatchDiscriminator
from cbtalk.model.keypoints import Keypoints, coordinate_grid
from cbtalk.model.talker import Talker, TalkerOutput
from cbtalk.train import adversarial
from cbtalk.train.data import Batch
from cbtalk.train.equivariance import ThinPlate, equivariance_losses
from cbtalk.train.face_points import EXPRESSIVE, expressive_places
from cbtalk.train.landmarks import guidance_loss
from cbtalk.train.perceptual import PerceptualLoss, Windows
from cbtalk.train.sections import TrainConfig

IMAGE_TERMS = ("pixel", "changed", "expression", "perceptual")
KEYPOINT_MARGIN = 0.2
DISTANCE_OFFSET = 1e-8
WEIGHT_OFFSET = 0.01  # a pair without change, or without a face, has no such term
EXPRESSION_RADIUS = 0.08  # of the Gaussian around each point; 10 pixels of 256


class Losses(NamedTuple):
    """One pass of the generator."""

    total: Tensor  # (), to be minimised
    terms: dict[str, Tensor]  # name -> (), each before its weight, detached
    output: TalkerOutput


class Draws(NamedTuple):
    """The random draws of a pass."""

    transform: ThinPlate  # of the driving frame, for the equivariance terms
    window: Tensor  # (B, 3) in [0, 1): where the perceptual loss looks at large images, and at which of the eyes


def keypoint_distance(points: Tensor) -> Tensor:
    """Mean over all ordered pairs of keypoints (B, K, 2) of 1 - sign(distance - 0.2); a figure: its gradient is zero.

    A keypoint's distance from itself counts as 0.2.
    """
    difference = points.unsqueeze(1) - points.unsqueeze(2)  # (B, K, K, 2)
    distance = torch.sqrt(difference.square().sum(-1) + DISTANCE_OFFSET)
    distance = distance + KEYPOINT_MARGIN * torch.eye(points.shape[1], dtype=points.dtype, device=points.device)
    return (1 - torch.sign(distance - KEYPOINT_MARGIN)).mean()


def changed_l1(prediction: Tensor, source: Tensor, driving: Tensor) -> Tensor:
    """Mean absolute error () of images (B, 3, H, W), each pixel weighted by how much driving differs from source.

    Of two frames close in time, mouth and eyes differ most: a mean over all pixels hardly sees them.
    """
    change = (driving - source).abs().mean(1, keepdim=True)
    weight = change / (change.mean(dim=(1, 2, 3), keepdim=True) + WEIGHT_OFFSET)
    return ((prediction - driving).abs() * weight).mean()


def expression_l1(prediction: Tensor, driving: Tensor, points: Tensor) -> Tensor:
    """Mean absolute error () of images (B, 3, H, H), each pixel weighted by how near mouth and eyes it lies.

    They are a thirtieth of an image, and most of what a face says.

    Args:
        points: of the driving faces (B, P, 2); a point that was not found (NaN) weighs nothing.
    """
    line = coordinate_grid(driving.shape[-1], driving)[0, :, 0]
    chosen = torch.cat([points[:, part] for part in EXPRESSIVE], dim=1)  # an index would be copied there
    distance = (line - chosen.unsqueeze(-1)) / EXPRESSION_RADIUS  # (B, P, 2, H)
    x, y = torch.exp(-0.5 * distance.square()).nan_to_num().unbind(2)
    with without_autocast(driving):
        weight = y.transpose(1, 2) @ x  # (B, H, H)
    weight = weight / (weight.mean(dim=(1, 2), keepdim=True) + WEIGHT_OFFSET)
    return ((prediction - driving).abs().mean(1) * weight).mean()


class Objective:
    """Computes the generator's losses.

    Args:
        perceptual: None leaves the perceptual terms out.
    """

    def __init__(self, config: TrainConfig, perceptual: PerceptualLoss | None) -> None:
        self.config = config
        self.weights = config.loss
        self.perceptual = perceptual if config.loss.perceptual else None

    def __call__(
        self, talker: Talker, batch: Batch, draws: Draws, discriminator: PatchDiscriminator | None = None
    ) -> Losses:
        """One pass over a batch; the driving frames are the ground truth.

        Args:
            discriminator: None while the adversarial term is off.
        """
        output = talker(batch.source, batch.driving, low_resolution=self.weights.low_resolution != 0)
        raw = self._reconstruction(output, batch, draws.window)
        raw |= self._codes(output)
        raw |= self._keypoints(talker, output.source_keypoints, output.driving_keypoints, batch, draws.transform)
        raw["keypoint_distance"] = keypoint_distance(output.source_keypoints.value) + keypoint_distance(
            output.driving_keypoints.value
        )
        total = self._sum(raw)
        if discriminator is not None:
            raw["gan_generator"] = adversarial.generator_loss(discriminator(output.prediction))
            weight = adversarial.adaptive_weight(
                self._sum({name: raw[name] for name in IMAGE_TERMS if name in raw}),
                raw["gan_generator"],
                talker.net_g.generator.last_weight,
                self.config.adversarial.weight,
            )
            total = total + weight * raw["gan_generator"]
            raw["adaptive_gan_weight"] = weight
        return Losses(total, {name: value.detach() for name, value in raw.items()}, output)

    def of_detector(self, talker: Talker, batch: Batch, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        """The losses that the keypoint detector has without the generator: their weighted sum (), and each by name."""
        driving, source = talker.keypoints(batch.driving), talker.keypoints(batch.source)
        raw = self._keypoints(talker, source, driving, batch, draws.transform)
        return self._sum(raw), {name: value.detach() for name, value in raw.items()}

    def _sum(self, terms: dict[str, Tensor]) -> Tensor:
        """Weighted sum of terms that all have a weight of their own."""
        return torch.stack([self._weight(name) * value for name, value in terms.items()]).sum()

    def _weight(self, name: str) -> float:
        weights = self.weights
        kind = name.partition(".")[0]
        if kind.endswith("_lr"):
            return weights.low_resolution * getattr(weights, kind.removesuffix("_lr"))
        return getattr(weights, kind)

    def _reconstruction(self, output: TalkerOutput, batch: Batch, drawn: Tensor) -> dict[str, Tensor]:
        driving, prediction = batch.driving, full_precision(output.prediction)
        images = {"": output.prediction}
        if output.prediction_lr is not None:
            images["_lr"] = output.prediction_lr
        raw = {f"pixel{suffix}": F.l1_loss(full_precision(image), driving) for suffix, image in images.items()}
        if self.weights.changed:
            raw["changed"] = changed_l1(prediction, batch.source, driving)
        if self.weights.expression and batch.points is not None:
            raw["expression"] = expression_l1(prediction, driving, batch.points[1])
        if self.weights.warped and output.warped is not None:
            raw["warped"] = F.l1_loss(full_precision(output.warped), driving)
        if self.perceptual is not None:
            windows = self._windows(batch, drawn)
            with torch.no_grad():
                target = self.perceptual.features(driving, windows)
            raw |= {f"perceptual{suffix}": self.perceptual(image, target, windows) for suffix, image in images.items()}
        return raw

    def _windows(self, batch: Batch, drawn: Tensor) -> Windows:
        """Anywhere; and on the driving face's mouth and one of its eyes, where the configuration says so."""
        centres = drawn.new_empty(0, *drawn[:, :2].shape)
        if self.config.perceptual.faces and batch.points is not None:
            mouth, left, right = expressive_places(batch.points[1])
            centres = torch.stack([mouth, torch.where(drawn[:, 2:] < 0.5, left, right)])
        return Windows(drawn[:, :2], centres)

    def _codes(self, output: TalkerOutput) -> dict[str, Tensor]:
        kinds = ("motion_code", "motion_recon", "appearance_code")
        return {f"{kind}.{scale}": value for kind in kinds for scale, value in enumerate(getattr(output, kind))}

    def _keypoints(
        self, talker: Talker, source: Keypoints, driving: Keypoints, batch: Batch, transform: ThinPlate
    ) -> dict[str, Tensor]:
        raw: dict[str, Tensor] = {}
        if self.weights.equivariance_value or self.weights.equivariance_jacobian:
            transform = transform.to(batch.driving)
            with without_autocast(batch.driving):
                transformed_frame = transform.warp(batch.driving)
            transformed = talker.keypoints(transformed_frame)
            with without_autocast(batch.driving):
                value, jacobian = equivariance_losses(driving, transformed, transform)
            raw |= {"equivariance_value": value, "equivariance_jacobian": jacobian}
        if self.weights.guidance and batch.points is not None:
            of_source, of_driving = batch.points
            raw["guidance"] = guidance_loss(source.value, of_source) + guidance_loss(driving.value, of_driving)
        return raw
