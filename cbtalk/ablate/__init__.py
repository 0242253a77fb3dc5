"""The ablations of the paper: each variant trained and evaluated, and one table of all."""

from cbtalk.ablate.command import choose, compare_variants

__all__ = ["choose", "compare_variants"]
