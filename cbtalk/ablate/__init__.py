"""The ablations of the paper: each variant trained and evaluated, and one table of all."""

from cbtalk.ablate.command import choose, run

__all__ = ["choose", "run"]
