"""The two functions of a talker that are exported: a source encoded once, and animated for each driving frame."""

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from cbtalk.model.keypoints import Keypoints
from cbtalk.model.talker import SourceState, Talker
from cbtalk.ops.backends import use_backend

_BATCH = 2  # of the examples; one would be taken for a constant


class Encode(nn.Module):
    """A source image -> its keypoints, their jacobians, the image as dense motion sees it, and its features."""

    def __init__(self, talker: Talker) -> None:
        super().__init__()
        self.talker = talker

    def forward(self, source: Tensor) -> tuple[Tensor, ...]:
        """(1, 3, H, W) in [-1, 1] -> (1, K, 2), (1, K, 2, 2), (1, 3, h, h), and the features (1, C, s, s)."""
        state = self.talker.encode_source(source)
        return *state.keypoints, state.small, *state.features


class Animate(nn.Module):
    """Driving frames and an encoded source -> the source animated."""

    def __init__(self, talker: Talker) -> None:
        super().__init__()
        self.talker = talker

    def forward(
        self, driving: Tensor, reference_keypoints: Tensor, reference_jacobians: Tensor, *source: Tensor
    ) -> Tensor:
        """The source in the pose of each driving frame (B, 3, H, W) -> (B, 3, H, W), within [-1, 1].

        Args:
            reference_keypoints, reference_jacobians: (1, K, 2) and (1, K, 2, 2) of the driving frame whose pose is the
                source's; those of the source itself make the motion absolute.
            source: from `Encode`.
        """
        keypoints, jacobians, small, *features = source
        state = SourceState(Keypoints(keypoints, jacobians), tuple(features), small)
        reference = Keypoints(reference_keypoints, reference_jacobians)
        return self.talker.animate(state, driving, reference=reference).clamp(-1, 1)


def source_names(talker: Talker) -> list[str]:
    """Names of what `Encode` gives and `Animate` takes."""
    features = [f"feature_{scale}" for scale in talker.config.scales]
    image = ["source_image"] if talker.config.source_pixels else []
    return ["source_keypoints", "source_jacobians", "source_small", *features, *image]


def programs(talker: Talker) -> dict[str, ExportedProgram]:
    """`encode` and `animate` as programs of torch's standard operators; the driving frames are any number.

    Args:
        talker: in float32, on the CPU.
    """
    size = talker.image_size
    encode, animate = Encode(talker), Animate(talker)
    images = torch.linspace(-1, 1, _BATCH * 3 * size * size).view(_BATCH, 3, size, size)
    with use_backend("reference"):  # every op as the standard operators that define it
        state = encode(images[:1])
        reference = [part.clone() for part in state[:2]]  # the same tensors would be taken for one input
        any_number = {"driving": {0: Dim("batch")}, "reference_keypoints": None, "reference_jacobians": None}
        shapes = {**any_number, "source": (None,) * len(state)}
        return {
            "encode": export(encode, (images[:1],)),
            "animate": export(animate, (images, *reference, *state), dynamic_shapes=shapes),
        }
