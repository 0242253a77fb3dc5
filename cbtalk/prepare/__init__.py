"""From raw videos to training clips: one person each, in a fixed square, sharp and moving, with a report."""

from cbtalk.prepare.options import PrepareOptions
from cbtalk.prepare.run import Outcome, prepare

__all__ = ["Outcome", "PrepareOptions", "prepare"]
