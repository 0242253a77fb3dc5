"""A page to try cbtalk in: a portrait animated, the webcam live, many renders. It needs the extra `app`."""

from cbtalk.app.limits import Limits
from cbtalk.app.server import AppOptions, served

__all__ = ["AppOptions", "Limits", "served"]
