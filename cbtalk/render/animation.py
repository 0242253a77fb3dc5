"""A talker at work on images as bytes, batch by batch; and once more in float32 where they are not finite."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cbtalk.model.cuda_graphs import CudaGraphs
from cbtalk.model.images import to_bytes, to_images
from cbtalk.model.keypoints import Keypoints
from cbtalk.model.talker import SourceState, Talker
from cbtalk.model.transfers import upload


@torch.inference_mode()
def encode_source(talker: Talker, sources: NDArray[np.uint8]) -> SourceState:
    """Everything that depends on source images (B, S, S, 3) uint8 alone."""
    device = next(talker.parameters()).device
    return talker.encode_source(to_images(upload(torch.from_numpy(sources), device)))


@torch.inference_mode()
def animate(talker: Talker, state: SourceState, keypoints: Keypoints) -> tuple[Tensor, Tensor]:
    """Images (B, S, S, 3) uint8 and which are finite (B,) bool, on the talker's device."""
    prediction = talker.animate_keypoints(state, keypoints)  # (B, 3, S, S)
    return to_bytes(prediction), prediction.isfinite().flatten(1).all(dim=1)


class Animator:
    """The work of a talker for each batch, on a GPU by CUDA graphs; nothing of it waits for the device.

    The talker must not change while it is here.
    """

    def __init__(self, talker: Talker) -> None:
        self.talker = talker
        self.device = next(talker.parameters()).device
        graphs = CudaGraphs if self.device.type == "cuda" else _plain
        self._detect = graphs(lambda frames: talker.keypoints(to_images(frames)))
        self._animate = graphs(lambda state, keypoints: animate(talker, state, keypoints))

    @property
    def failure(self) -> str | None:
        """The reason why a CUDA graph could not be captured, if one should have been."""
        return next((f.failure for f in (self._detect, self._animate) if isinstance(f, CudaGraphs) and f.failure), None)

    @torch.inference_mode()
    def detect(self, images: NDArray[np.uint8]) -> Keypoints:
        """Keypoints of driving images (B, S, S, 3) uint8, on the talker's device."""
        return self._detect(upload(torch.from_numpy(images), self.device))

    @torch.inference_mode()
    def animate(self, state: SourceState, keypoints: Keypoints) -> tuple[Tensor, Tensor]:
        """As the function of this name."""
        return self._animate(state, keypoints)


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


class Repetition:
    """The same in float32, for a talker in half precision whose images are not all finite.

    make_talker: gives the talker in float32; it is called where an image is repeated, and not before.
    """

    def __init__(self, make_talker: Callable[[], Talker]) -> None:
        self._make_talker = make_talker
        self._last: tuple[NDArray[np.uint8], SourceState] | None = None

    def animate(self, sources: NDArray[np.uint8], keypoints: Keypoints) -> tuple[Tensor, Tensor]:
        """As `animate`, of source images (1 or B, S, S, 3) uint8; those of the last call are not encoded again."""
        talker = self._make_talker()
        last = self._last  # read once: another thread may be here too
        if last is None or last[0] is not sources:
            last = self._last = sources, encode_source(talker, sources)
        return animate(talker, last[1], keypoints)
