"""The talker: a source image animated by the motion of driving images."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cbtalk.errors import InputError
from cbtalk.model.config import TalkerConfig
from cbtalk.model.dense_motion import MotionEstimator
from cbtalk.model.generator import CompensatedGenerator
from cbtalk.model.keypoints import Keypoints
from cbtalk.model.relative_motion import relative_keypoints


class SourceState(NamedTuple):
    """Everything that depends on the source image alone; made by `Talker.encode_source`."""

    keypoints: Keypoints  # (B, K)
    features: tuple[Tensor, ...]  # (B, C, s, s) as `Encoder` gives them, in the talker's dtype; the image as it is
    small: Tensor  # (B, 3, h, h): the source as dense motion sees it


@dataclass
class TalkerOutput:
    """Outputs of a training step; gradients flow through all of them."""

    prediction: Tensor  # (B, 3, H, W)
    prediction_lr: Tensor | None  # (B, 3, H, W): the generator without fusion; None unless asked for
    warped: Tensor | None  # (B, 3, H, W): the source's pixels under the last flow; None without source pixels
    source_keypoints: Keypoints
    driving_keypoints: Keypoints
    deformations: list[Tensor]  # (B, h, h, 2): dense motion's, then after each scale
    occlusions: list[Tensor]  # (B, 1, h, h): likewise
    motion_code: list[Tensor] = field(default_factory=list)  # () per scale
    motion_recon: list[Tensor] = field(default_factory=list)  # () per scale
    appearance_code: list[Tensor] = field(default_factory=list)  # () per compensated scale


class Talker(nn.Module):
    """Keypoint detector, dense motion and generator with codebooks. Images are RGB in [-1, 1], `image_size` square.

    The submodules `net_g` and `motion_estimator` bear the parameter names of the published model. Parameters live in
    channels_last, the layout in which every convolution and warp runs.
    """

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__()
        self.config = config
        self.net_g = CompensatedGenerator(config)
        self.motion_estimator = MotionEstimator(config)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _apply(self, fn: Callable[..., Tensor], recurse: bool = True) -> "Talker":
        """Behind `to`, `half` and the like; raises TypeError where keypoints and coordinates would be rounded too."""
        if (dtype := fn(torch.empty(0)).dtype) in (torch.bfloat16, torch.float16):
            raise TypeError(
                f"a talker's keypoints and coordinates do not survive {dtype}; "
                f"cbtalk.load(name, dtype={dtype}) casts all the rest"
            )
        return super()._apply(fn, recurse)

    @property
    def image_size(self) -> int:
        """Height and width of the images."""
        return self.config.image_size

    def keypoints(self, image: Tensor) -> Keypoints:
        """Keypoints (B, K) of images (B, 3, H, W)."""
        return self.motion_estimator.kp_detector(self._channels_last(image))

    def encode_source(self, source: Tensor) -> SourceState:
        """All that depends on the source (1 or B, 3, H, W) alone, for any number of calls of `animate`."""
        source = self._channels_last(source)
        return self._encode(source, self.motion_estimator.kp_detector(source))

    def animate(
        self, state: SourceState, driving: Tensor, *, reference: Keypoints | None = None, adapt_scale: bool = False
    ) -> Tensor:
        """The source in the pose of each driving image (B, 3, H, W) -> (B, 3, H, W), not clamped.

        Args:
            state: from `encode_source`, of one source or of B sources.
            reference: keypoints (1 or B, K) of a driving frame whose pose is the source's: the motion is taken relative
                to it. Without it, the motion is absolute: the driving keypoints as they are.
            adapt_scale: with a reference, adapt the motion to the size of the source's face.
        """
        keypoints = self.keypoints(driving)
        if reference is not None:
            keypoints = relative_keypoints(state.keypoints, keypoints, reference, adapt_scale=adapt_scale)
        return self.animate_keypoints(state, keypoints)

    def animate_keypoints(self, state: SourceState, keypoints: Keypoints) -> Tensor:
        """The source with its keypoints moved to `keypoints` (B, K) -> (B, 3, H, W), not clamped."""
        motion = self.motion_estimator.dense_motion_network(state.small, state.keypoints, keypoints)
        return self.net_g(state.features, motion).image

    def forward(self, source: Tensor, driving: Tensor, *, low_resolution: bool = True) -> TalkerOutput:
        """One training pass: the source (B, 3, H, W) animated by the driving frame (B, 3, H, W) of the same video.

        Args:
            low_resolution: also run the generator without fusion (`prediction_lr`).
        """
        source, driving = self._channels_last(source), self._channels_last(driving)
        # the order in which the batch norms' running statistics are updated: driving, then source
        driving_keypoints = self.motion_estimator.kp_detector(driving)
        state = self._encode(source, self.motion_estimator.kp_detector(source))
        motion = self.motion_estimator.dense_motion_network(state.small, state.keypoints, driving_keypoints)
        result = self.net_g(state.features, motion)
        output = TalkerOutput(
            prediction=result.image,
            prediction_lr=self.net_g.generator(result.latent) if low_resolution else None,
            warped=result.warped,
            source_keypoints=state.keypoints,
            driving_keypoints=driving_keypoints,
            deformations=[motion.deformation, *(step.deformation for step in result.motion)],
            occlusions=[motion.occlusion, *(step.occlusion for step in result.motion)],
        )
        for index, step in enumerate(result.motion):
            code, reconstruction = self.net_g.motion_losses(step, index)
            output.motion_code.append(code)
            output.motion_recon.append(reconstruction)
        if self.config.compensated_scales:
            targets = self.net_g.encoder.appearance_targets(driving)
            for index in range(len(self.config.compensated_scales)):
                output.appearance_code.append(self.net_g.appearance_loss(index, targets[index]))
        return output

    def motion_fingerprint(self) -> str:
        """Identifies what keypoints mean: equal only for models whose keypoints are interchangeable."""
        digest = hashlib.sha256(f"{self.config.image_size} {self.config.keypoints}".encode())
        for name, tensor in sorted(self.motion_estimator.kp_detector.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def _encode(self, source: Tensor, keypoints: Keypoints) -> SourceState:
        return SourceState(
            keypoints, self.net_g.encoder(source), self.motion_estimator.dense_motion_network.down(source)
        )

    def _channels_last(self, image: Tensor) -> Tensor:
        size = self.image_size
        if image.dim() != 4 or image.shape[1:] != (3, size, size):
            raise InputError(f"an image batch has shape {tuple(image.shape)}; this model takes (B, 3, {size}, {size})")
        return image.contiguous(memory_format=torch.channels_last)
