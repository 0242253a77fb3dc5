"""Batches of driving keypoints or images to finished images, for one source."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cbtalk.errors import WeightsError
from cbtalk.model.keypoints import Keypoints
from cbtalk.model.relative_motion import relative_keypoints
from cbtalk.model.talker import SourceState, Talker
from cbtalk.model.transfers import Download, download, upload
from cbtalk.render.animation import Animator, Repetition, encode_source


class Rendered(NamedTuple):
    """A batch of finished images: images (B, S, S, 3) uint8 RGB; `held` of them repeat what came before.

    repeated: how many were computed again in float32.
    """

    images: NDArray[np.uint8]
    held: int
    repeated: int


class Submitted(NamedTuple):
    """A batch on its way: its images, which of them are finite, whose motion is held; and of what they are made."""

    download: Download
    sources: NDArray[np.uint8]
    keypoints: Keypoints


class Engine:
    """Renders one source: what depends on it alone is computed once, and what is not finite never leaves.

    source: (S, S, 3) uint8 RGB, S the talker's image size; state: of `encode_source`, where it is known. Relative
    motion is measured from the keypoints of the first frame rendered of each scene that are finite, unless `start_from`
    names others, and multiplied by `strength`. A batch with an image that is not finite is animated once more by
    `in_float32`, where that is given. animator: of the talker, where there is one already.

    On a GPU `submit` only queues a batch and returns at once; `finish` waits for its event and for nothing behind it.
    They may run in two threads, each taking the batches in order.
    """

    def __init__(
        self,
        talker: Talker,
        source: NDArray[np.uint8],
        state: SourceState | None = None,
        *,
        relative: bool = True,
        adapt_scale: bool = False,
        strength: float = 1.0,
        in_float32: Repetition | None = None,
        animator: Animator | None = None,
    ) -> None:
        self.talker = talker
        self.relative = relative
        self.adapt_scale, self.strength = adapt_scale, strength
        self.rendered_any = False
        self._initial: dict[int, Keypoints] = {}  # of each scene
        self._in_float32 = in_float32
        self._animator = animator or Animator(talker)
        self._last_image = source
        self._sources = source[None]
        self.state = state or encode_source(talker, self._sources)
        self._last_keypoints = self.state.keypoints
        if not is_finite(self._last_keypoints).all():
            raise WeightsError("the model finds no finite keypoints in the source image: its weights are damaged")

    def start_from(self, initial: Keypoints, scene: int = 0) -> None:
        """Measure relative motion in a scene from these driving keypoints: value (1, K, 2), jacobian (1, K, 2, 2)."""
        self._initial[scene] = Keypoints(*(part.to(self._animator.device) for part in initial))

    def take_sources(self, sources: NDArray[np.uint8]) -> None:
        """Let these images (B, S, S, 3) uint8 be the sources of the next B frames, each of its own."""
        self._sources = sources
        self.state = encode_source(self.talker, sources)

    @torch.inference_mode()
    def unmoved(self) -> NDArray[np.uint8]:
        """The sources as the model makes them, in the pose that they have: (B, S, S, 3) uint8."""
        keypoints = self.state.keypoints
        frames, finite = download(*self._animator.animate(self.state, keypoints)).wait()
        frames, _ = self._again(self._sources, keypoints, finite) or (frames, finite)
        return frames.numpy()

    def detect(self, images: NDArray[np.uint8]) -> Keypoints:
        """Keypoints of driving images (B, S, S, 3) uint8, on the talker's device."""
        return self._animator.detect(images)

    def render(self, driving: Keypoints, scenes: Sequence[int] | None = None) -> Rendered:
        """A batch submitted and finished."""
        return self.finish(self.submit(driving, scenes))

    @torch.inference_mode()
    def submit(self, driving: Keypoints, scenes: Sequence[int] | None = None) -> Submitted:
        """Begin images for driving keypoints value (B, K, 2), jacobian (B, K, 2, 2), in time order.

        scenes: the number of each frame's scene; without them all are of scene 0.
        Where the motion or the image of a frame is not finite, the last good one (at first the source's own) is held.
        """
        driving = Keypoints(*(upload(part, self._animator.device) for part in driving))
        placed = self._place(driving, scenes or [0] * len(driving.value))
        keypoints, held_motion = hold_last(self._last_keypoints, placed)
        self._last_keypoints = Keypoints(*(part[-1:] for part in keypoints))
        frames, finite = self._animator.animate(self.state, keypoints)
        return Submitted(download(frames, finite, held_motion), self._sources, keypoints)

    @torch.inference_mode()
    def finish(self, batch: Submitted) -> Rendered:
        """The images of a batch, once they are there; batches in the order of `submit`."""
        frames, finite, held_motion = batch.download.wait()
        again = self._again(batch.sources, batch.keypoints, finite)
        frames, finite = again or (frames, finite)
        images = frames.numpy()
        for index in range(len(images)):
            if finite[index]:
                self._last_image = images[index]
            else:
                images[index] = self._last_image
        held = held_motion | ~finite
        self.rendered_any = self.rendered_any or not bool(held.all())
        return Rendered(images, int(held.sum()), repeated=len(images) if again else 0)

    def _again(self, sources: NDArray[np.uint8], keypoints: Keypoints, finite: Tensor) -> list[Tensor] | None:
        """A batch's images and which are finite, in float32; None where all were, or float32 is what they were in."""
        if self._in_float32 is None or finite.all():
            return None
        return download(*self._in_float32.animate(sources, keypoints)).wait()

    def _place(self, driving: Keypoints, scenes: Sequence[int]) -> Keypoints:
        """Driving keypoints as they are, or moved to where the source has its own."""
        if not self.relative:
            return driving
        ends = [index for index in range(1, len(scenes)) if scenes[index] != scenes[index - 1]]
        each = [
            self._measured_from(scenes[start], Keypoints(*(part[start:end] for part in driving)))
            for start, end in pairwise([0, *ends, len(scenes)])
        ]
        initial = Keypoints(*(torch.cat(parts) for parts in zip(*each, strict=True)))
        return relative_keypoints(
            self.state.keypoints, driving, initial, adapt_scale=self.adapt_scale, strength=self.strength
        )

    def _measured_from(self, scene: int, driving: Keypoints) -> Keypoints:
        """The initial keypoints of a scene for each of its next driving ones (B, K).

        They are the first finite ones, found on the device. While there are none, any stand in, for all is held.
        """
        known = self._initial.get(scene, Keypoints(*(part[:0] for part in driving)))
        met = [torch.cat(parts) for parts in zip(known, driving, self._last_keypoints, strict=True)]
        first = last_good(is_finite(Keypoints(*met))[:-1]).eq(0).sum(dim=0, keepdim=True)  # those before it are not
        self._initial[scene] = Keypoints(*(part[first.clamp(max=len(part) - 2)] for part in met))
        return Keypoints(*(part[first].expand(len(driving.value), *part.shape[1:]) for part in met))


def is_finite(keypoints: Keypoints) -> Tensor:
    """(B,) bool: every number of a frame's keypoints is finite."""
    value, jacobian = keypoints
    return value.isfinite().flatten(1).all(dim=1) & jacobian.isfinite().flatten(1).all(dim=1)


def hold_last(last: Keypoints, keypoints: Keypoints) -> tuple[Keypoints, Tensor]:
    """Replace frames that are not finite by the good one before them, `last` (one frame) being before them all.

    Returns the keypoints and (B,) bool, true where a frame was replaced.
    """
    good = is_finite(keypoints)
    position = last_good(good)
    parts = (torch.cat([before, part])[position] for before, part in zip(last, keypoints, strict=True))
    return Keypoints(*parts), ~good


def last_good(good: Tensor) -> Tensor:
    """(B,): for each frame the number of the last good one up to it, counted from 1; 0 where there is none."""
    return (torch.arange(1, len(good) + 1, device=good.device) * good).cummax(dim=0).values
