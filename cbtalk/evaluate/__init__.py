"""Figures of a talker on clips."""

from cbtalk.evaluate.protocol import markdown, run

__all__ = ["markdown", "run"]
