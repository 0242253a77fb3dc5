"""The usage of a codebook: the share of all attention that each code gets."""

from typing import NamedTuple

import torch
from torch import Tensor

from cbtalk.figures.stages import Stage

BOOKS = ("motion", "appearance")


class Usage(NamedTuple):
    """The use of one book at one scale: the share of the attention that each of its K codes gets."""

    scale: int
    shares: Tensor  # (K,), of sum 1
    allowed: int  # codes that the scale may use

    @property
    def perplexity(self) -> float:
        """The number of codes that would be used as evenly as these: from 1 to `allowed`."""
        shares = self.shares[self.shares > 0]
        return float((-(shares * shares.log()).sum()).exp())

    @property
    def favourites(self) -> int:
        """The codes that get more than their even share."""
        return int((self.shares > 1 / self.allowed).sum())


def usage(frames: list[list[Stage]]) -> dict[str, list[Usage]]:
    """The use of each book at each scale over the stages of several frames; a book that is not there is left out."""
    found: dict[str, list[Usage]] = {book: [] for book in BOOKS}
    for same_scale in zip(*frames, strict=True):
        for book in BOOKS:
            attention = [getattr(stage, f"{book}_attention") for stage in same_scale]
            if attention[0] is not None:
                mean = torch.stack([weights.mean(dim=0) for weights in attention]).mean(dim=0)
                allowed = int((attention[0] > 0).any(dim=0).sum())
                found[book].append(Usage(same_scale[0].scale, mean / mean.sum(), allowed))
    return {book: uses for book, uses in found.items() if uses}
