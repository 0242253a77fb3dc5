"""Batches of driving keypoints or pictures to finished pictures, for one source."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cbtalk.errors import WeightsError
from cbtalk.model.keypoints import Keypoints
from cbtalk.model.pictures import to_bytes, to_pictures
from cbtalk.model.relative_motion import relative_keypoints
from cbtalk.model.talker import Talker
from cbtalk.model.transfers import download, upload


class Rendered(NamedTuple):
    """A batch of finished pictures: images (B, S, S, 3) uint8 RGB; `held` of them repeat what came before."""

    images: NDArray[np.uint8]
    held: int


class Engine:
    """Renders one source: what depends on it alone is computed once, and what is not finite never leaves.

    source: (S, S, 3) uint8 RGB, S the talker's image size. Relative motion is measured from the keypoints `initial`
    of the first frame rendered, unless `start_from` names others.
    """

    def __init__(
        self,
        talker: Talker,
        source: NDArray[np.uint8],
        *,
        relative: bool = True,
        adapt_scale: bool = False,
    ) -> None:
        self.talker = talker
        self.relative = relative
        self.adapt_scale = adapt_scale
        self.rendered_any = False
        self._initial: Keypoints | None = None
        self._device = next(talker.parameters()).device
        self._last_image = source
        with torch.inference_mode():
            self.state = talker.encode_source(to_pictures(upload(torch.from_numpy(source[None]), self._device)))
        self._last_keypoints = self.state.keypoints
        if not is_finite(self._last_keypoints).all():
            raise WeightsError("the model finds no finite keypoints in the source picture: its weights are damaged")

    def start_from(self, initial: Keypoints) -> None:
        """Measure relative motion from these driving keypoints: value (1, K, 2), jacobian (1, K, 2, 2)."""
        self._initial = Keypoints(*(part.to(self._device) for part in initial))

    @torch.inference_mode()
    def detect(self, images: NDArray[np.uint8]) -> Keypoints:
        """Keypoints of driving pictures (B, S, S, 3) uint8."""
        return self.talker.keypoints(to_pictures(upload(torch.from_numpy(images), self._device)))

    @torch.inference_mode()
    def render(self, driving: Keypoints) -> Rendered:
        """Pictures for the driving keypoints value (B, K, 2), jacobian (B, K, 2, 2), in time order.

        Where the motion or the picture of a frame is not finite, the last good one (at first the source's own) is held.
        """
        driving = Keypoints(*(upload(part, self._device) for part in driving))
        keypoints, held_motion = hold_last(self._last_keypoints, self._place(driving))
        self._last_keypoints = Keypoints(*(part[-1:] for part in keypoints))
        prediction = self.talker.animate_keypoints(self.state, keypoints)  # (B, 3, S, S)
        finite = prediction.isfinite().flatten(1).all(dim=1)  # (B,)
        frames, finite, held_motion = download(to_bytes(prediction), finite, held_motion)
        images = frames.numpy()
        for index in range(len(images)):
            if finite[index]:
                self._last_image = images[index]
            else:
                images[index] = self._last_image
        held = held_motion | ~finite
        self.rendered_any = self.rendered_any or not bool(held.all())
        return Rendered(images, int(held.sum()))

    def _place(self, driving: Keypoints) -> Keypoints:
        """Driving keypoints as they are, or moved to where the source has its own."""
        if not self.relative:
            return driving
        if self._initial is None:
            good = is_finite(driving).nonzero().flatten()
            if len(good) == 0:
                return driving
            self.start_from(Keypoints(*(part[good[:1]] for part in driving)))
        assert self._initial is not None
        return relative_keypoints(self.state.keypoints, driving, self._initial, adapt_scale=self.adapt_scale)


def is_finite(keypoints: Keypoints) -> Tensor:
    """(B,) bool: every number of a frame's keypoints is finite."""
    value, jacobian = keypoints
    return value.isfinite().flatten(1).all(dim=1) & jacobian.isfinite().flatten(1).all(dim=1)


def hold_last(last: Keypoints, keypoints: Keypoints) -> tuple[Keypoints, Tensor]:
    """Replace frames that are not finite by the good one before them, `last` (one frame) being before them all.

    Returns the keypoints and (B,) bool, true where a frame was replaced.
    """
    good = is_finite(keypoints)
    position = torch.arange(1, len(good) + 1, device=good.device).where(good, 0).cummax(dim=0).values  # 0 is `last`
    parts = (torch.cat([before, part])[position] for before, part in zip(last, keypoints, strict=True))
    return Keypoints(*parts), ~good
