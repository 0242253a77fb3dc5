"""The threads in which FFmpeg works beside the model: none of the cores that the process has not been given."""

import torch

# The number of its threads changes what x264 makes of an image: with a fixed one, a video is the same on every
# machine and whatever works beside it.
ENCODING = 4

_MOST_DECODING = 8  # each holds frames of its own


def decoding_threads() -> int:
    """Threads that decode a video and convert its frames: as many as the model has, which does not change a pixel."""
    return min(torch.get_num_threads(), _MOST_DECODING)
