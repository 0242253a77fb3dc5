"""Figures of a talker on clips."""

from cbtalk.evaluate.protocol import run

__all__ = ["run"]
