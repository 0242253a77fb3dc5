"""Each process's share of a batch that is drawn once for all."""

from typing import NamedTuple

from torch import Tensor


class Share(NamedTuple):
    """One of equal parts of every batch."""

    number: int = 0
    parts: int = 1

    def rows(self, size: int) -> slice:
        """The rows of a batch of `size` that are in it."""
        part = size // self.parts
        return slice(self.number * part, (self.number + 1) * part)

    def of(self, drawn: Tensor, batches: int = 1) -> Tensor:
        """Its rows of what was drawn (batches * size, ...) for one batch behind the other."""
        each = drawn.unflatten(0, (batches, -1))
        return each[:, self.rows(each.shape[1])].flatten(0, 1)


WHOLE = Share()
