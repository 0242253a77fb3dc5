"""Figures of a talker on clips, and images to look at."""

from cbtalk.evaluate.extractors import Extractors, IdentityExtractor, LandmarkExtractor
from cbtalk.evaluate.protocol import evaluate_weights
from cbtalk.evaluate.report import markdown

__all__ = ["Extractors", "IdentityExtractor", "LandmarkExtractor", "evaluate_weights", "markdown"]
