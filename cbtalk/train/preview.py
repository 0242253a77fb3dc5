"""Previews of a run while it trains: images of fixed clips, and their reconstruction figures."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cbtalk.dataset import ClipFrames
from cbtalk.metrics.images import l1, psnr
from cbtalk.model.images import to_images
from cbtalk.model.talker import Talker
from cbtalk.train.logs import write_image_grid
from cbtalk.train.losses import expression_l1

CLIPS = 8  # shown at most
FRAMES_PER_CLIP = 8


class Preview:
    """First frames as sources, evenly spaced later frames as driving, absolute motion.

    Args:
        frames: of each clip, uint8 (T, H, W, 3).
        points: of the faces in each (T, P, 2), as `Landmarks` takes them; without them there is no figure `expression`.
    """

    def __init__(
        self,
        frames: Iterable[np.ndarray | ClipFrames],
        device: torch.device,
        points: Sequence[np.ndarray] | None = None,
    ) -> None:
        self.device = device
        self.clips, chosen = [], []
        for clip in frames:
            chosen.append(_evenly_spaced(len(clip)))
            self.clips.append(clip[chosen[-1]])  # copies: source, then driving
        self.points = None if points is None else [clip[rows] for clip, rows in zip(points, chosen, strict=True)]

    @torch.no_grad()
    def show(self, talker: Talker, path: Path) -> dict[str, float]:
        """Writes source | driving | result of each clip's middle frame; returns the mean over clips of every figure."""
        figures: list[dict[str, Tensor]] = []
        images = []
        for number, clip in enumerate(self.clips):
            frames = to_images(torch.from_numpy(clip).to(self.device))
            source, driving = frames[:1], frames[1:]
            prediction = talker.animate(talker.encode_source(source), driving)
            repeat = source.expand_as(driving)
            figures.append({})
            for suffix, shown in (("", prediction), ("_repeat", repeat)):
                figures[-1] |= {f"l1{suffix}": l1(shown, driving).mean(), f"psnr{suffix}": psnr(shown, driving).mean()}
                if self.points is not None:
                    points = torch.from_numpy(self.points[number][1:]).to(self.device)
                    figures[-1][f"expression{suffix}"] = expression_l1(shown, driving, points)
            middle = len(driving) // 2
            images.append(torch.cat([source, driving[middle : middle + 1], prediction[middle : middle + 1]]))
        write_image_grid(path, list(torch.stack(images).unbind(1)))
        means = torch.stack([torch.stack(list(clip.values())) for clip in figures]).mean(0)
        return dict(zip(figures[0], means.tolist(), strict=True))


def _evenly_spaced(length: int) -> np.ndarray:
    """Indices of the first frame and of up to FRAMES_PER_CLIP later ones."""
    later = np.linspace(length / FRAMES_PER_CLIP, length - 1, FRAMES_PER_CLIP).round().astype(int)
    return np.unique(np.concatenate([[0], np.clip(later, 0, length - 1)])) if length > 1 else np.array([0, 0])
