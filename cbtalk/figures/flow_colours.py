"""Flows as colours: the hue is the direction, the saturation the length."""

import numpy as np
from matplotlib.colors import hsv_to_rgb
from numpy.typing import NDArray

Array = NDArray[np.float64]


def flow_colours(flow: Array, longest: float) -> Array:
    """A flow (2, h, w) of x and y as RGB (h, w, 3) in [0, 1]; white is no flow, full colour `longest` and more."""
    hue = (np.arctan2(flow[1], flow[0]) / (2 * np.pi)) % 1
    saturation = np.clip(np.hypot(*flow) / max(longest, 1e-12), 0, 1)
    return hsv_to_rgb(np.stack([hue, saturation, np.ones_like(hue)], axis=-1))


def colour_wheel(size: int) -> Array:
    """The colours of all flows up to the longest, right and down positive: (size, size, 4), transparent outside."""
    line = np.linspace(-1, 1, size)
    x, y = np.meshgrid(line, line)
    colours = flow_colours(np.stack([x, y]), 1.0)
    return np.concatenate([colours, (np.hypot(x, y) <= 1)[..., None]], axis=-1)
