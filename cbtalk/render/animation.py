"""Pictures of a talker: sources and keypoints in, bytes out; and once more in float32 where they are not finite."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cbtalk.model.keypoints import Keypoints
from cbtalk.model.pictures import to_bytes, to_pictures
from cbtalk.model.talker import SourceState, Talker
from cbtalk.model.transfers import upload


@torch.inference_mode()
def encode_source(talker: Talker, sources: NDArray[np.uint8]) -> SourceState:
    """Everything that depends on source pictures (B, S, S, 3) uint8 alone."""
    device = next(talker.parameters()).device
    return talker.encode_source(to_pictures(upload(torch.from_numpy(sources), device)))


@torch.inference_mode()
def animate(talker: Talker, state: SourceState, keypoints: Keypoints) -> tuple[Tensor, Tensor]:
    """Pictures (B, S, S, 3) uint8 and which are finite (B,) bool, on the talker's device."""
    prediction = talker.animate_keypoints(state, keypoints)  # (B, 3, S, S)
    return to_bytes(prediction), prediction.isfinite().flatten(1).all(dim=1)


class Repetition:
    """The same in float32, for a talker in half precision whose pictures are not all finite.

    make_talker: gives the talker in float32; it is called where a picture is repeated, and not before.
    """

    def __init__(self, make_talker: Callable[[], Talker]) -> None:
        self._make_talker = make_talker
        self._sources: NDArray[np.uint8] | None = None
        self._state: SourceState | None = None

    def animate(self, sources: NDArray[np.uint8], keypoints: Keypoints) -> tuple[Tensor, Tensor]:
        """As `animate`, of source pictures (1 or B, S, S, 3) uint8; those of the last call are not encoded again."""
        talker = self._make_talker()
        if self._state is None or self._sources is not sources:
            self._sources, self._state = sources, encode_source(talker, sources)
        return animate(talker, self._state, keypoints)
