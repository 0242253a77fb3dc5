"""The best start of a relative motion: the driving frame whose keypoints lie most like the source's."""

import torch
from torch import Tensor

from cbtalk.model.relative_motion import hull_areas
from cbtalk.render.motion_file import Motion


def best_frames(source: Tensor, motion: Motion) -> dict[int, int]:
    """The number of each scene -> the index of its frame that is nearest the source, keypoint values (K, 2)."""
    scenes = torch.tensor(motion.scenes_of(slice(None)))
    rows = {int(scene): (scenes == scene).nonzero().flatten() for scene in scenes.unique()}
    return {scene: int(own[best_frame(source, motion.keypoints.value[own])]) for scene, own in rows.items()}


def best_frame(source: Tensor, driving: Tensor) -> int:
    """The index of the driving frame that is nearest the source.

    source (K, 2), driving (T, K, 2): keypoint values. Both are centred and divided by the root of their convex hull's
    area, so that neither the place nor the size of the face counts; the distance is the sum of squared differences.
    Our own keypoints take the place of face landmarks. Ties go to the earliest frame.
    """
    distances = (_normalise(driving) - _normalise(source[None])).square().sum(dim=(1, 2))  # (T,)
    return int(distances.argmin())


def _normalise(value: Tensor) -> Tensor:
    """value (T, K, 2), centred and of hull area 1."""
    centred = value.double() - value.double().mean(dim=1, keepdim=True)
    # Keypoints on one line have no area: they stay finite, and far from every face.
    return centred / hull_areas(centred).clamp(min=1e-12).sqrt()[:, None, None]
