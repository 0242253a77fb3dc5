"""Pictures of what the model does inside, and of several results side by side."""

from cbtalk.figures.command import run

__all__ = ["run"]
