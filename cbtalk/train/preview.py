"""What a run shows of itself while it trains: pictures of fixed clips, and their reconstruction figures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from cbtalk.evaluate.metrics import l1, psnr
from cbtalk.model.pictures import to_pictures
from cbtalk.model.talker import Talker
from cbtalk.train.logs import write_picture_grid

CLIPS = 8  # shown at most
FRAMES_PER_CLIP = 8
FIGURES = ("l1", "psnr", "l1_repeat", "psnr_repeat")


class Preview:
    """First frames as sources, evenly spaced later frames as driving, absolute motion.

    Args:
        frames: for each clip, uint8 (T, H, W, 3).
    """

    def __init__(self, frames: Sequence[np.ndarray], device: torch.device) -> None:
        self.device = device
        self.clips = [clip[_evenly_spaced(len(clip))] for clip in frames]  # copies: source, then driving frames

    @torch.no_grad()
    def show(self, talker: Talker, path: Path) -> dict[str, float]:
        """Writes source | driving | result of each clip's middle frame; returns the mean over clips of every figure."""
        figures, pictures = [], []
        for clip in self.clips:
            frames = to_pictures(torch.from_numpy(clip).to(self.device))
            source, driving = frames[:1], frames[1:]
            prediction = talker.animate(talker.encode_source(source), driving)
            repeat = source.expand_as(driving)
            figures.append(
                [l1(prediction, driving), psnr(prediction, driving), l1(repeat, driving), psnr(repeat, driving)]
            )
            middle = len(driving) // 2
            pictures.append(torch.cat([source, driving[middle : middle + 1], prediction[middle : middle + 1]]))
        write_picture_grid(path, list(torch.stack(pictures).unbind(1)))
        means = torch.stack([torch.stack([figure.mean() for figure in clip]) for clip in figures]).mean(0)
        return dict(zip(FIGURES, means.tolist(), strict=True))


def _evenly_spaced(length: int) -> np.ndarray:
    """Indices of the first frame and of up to FRAMES_PER_CLIP later ones."""
    later = np.linspace(length / FRAMES_PER_CLIP, length - 1, FRAMES_PER_CLIP).round().astype(int)
    return np.unique(np.concatenate([[0], np.clip(later, 0, length - 1)])) if length > 1 else np.array([0, 0])
