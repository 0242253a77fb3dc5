"""A stand-in for the model that makes motion readable: an image's brightness is where its keypoints are, and back."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from cbtalk.model.config import PRESETS
from cbtalk.model.keypoints import Keypoints

SIZE = 48
REACH = 0.5  # keypoints move from -REACH to REACH as brightness goes from black to white


class FakeState(NamedTuple):
    keypoints: Keypoints


class FakeTalker(nn.Module):
    """Keypoints are a square whose centre is at x = REACH * brightness and which is wider the brighter the image.

    The image of keypoints is flat, as bright as their centre says. `blind_to` and `dumb_at` are brightnesses in
    [-1, 1] whose keypoints, or whose images, come out as NaN.
    """

    def __init__(self, blind_to: float | None = None, dumb_at: float | None = None) -> None:
        super().__init__()
        self.config = PRESETS["mini"]
        self.image_size = SIZE
        self.blind_to, self.dumb_at = blind_to, dumb_at
        self.weight = nn.Parameter(torch.zeros(1))
        self.batches: list[int] = []

    def keypoints(self, image: Tensor) -> Keypoints:
        brightness = image.flatten(1).median(dim=1).values  # (B,)
        if self.blind_to is not None:
            brightness = brightness.masked_fill((brightness - self.blind_to).abs() < 0.01, torch.nan)
        angle = torch.arange(self.config.keypoints) * (2 * torch.pi / self.config.keypoints)
        circle = torch.stack([angle.cos(), angle.sin()], dim=-1) * 0.3  # (K, 2)
        value = circle.repeat(len(image), 1, 1)
        value[..., 0] = value[..., 0] * (1.5 + brightness[:, None]) + REACH * brightness[:, None]
        return Keypoints(value, torch.eye(2).expand(*value.shape[:2], 2, 2).contiguous())

    def encode_source(self, source: Tensor) -> FakeState:
        return FakeState(self.keypoints(source))

    def animate_keypoints(self, state: FakeState, keypoints: Keypoints) -> Tensor:
        assert torch.is_inference_mode_enabled()
        self.batches.append(len(keypoints.value))
        brightness = keypoints.value[..., 0].mean(dim=1) / REACH  # (B,)
        if self.dumb_at is not None:
            brightness = brightness.masked_fill((brightness - self.dumb_at).abs() < 0.01, torch.nan)
        return brightness[:, None, None, None].expand(-1, 3, SIZE, SIZE)

    def motion_fingerprint(self) -> str:
        return "fake"


def level(number: int) -> float:
    """The brightness in [-1, 1] of `numbered(number)` of tests.helpers.videos."""
    return 4 * number / 127.5 - 1
