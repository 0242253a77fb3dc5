"""Images of what the model does inside, and of several results side by side."""

from cbtalk.figures.command import draw_figures

__all__ = ["draw_figures"]
