"""Transparency: decoders that see it, and images laid over white."""

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream
from numpy.typing import NDArray

# WebM stores alpha as a second image beside the first, which FFmpeg's own decoders of these codecs leave out.
_SEES_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


def decoder_of(stream: VideoStream) -> VideoCodecContext:
    """The decoder of a stream: its own, or where WebM says that there is alpha, one that sees it."""
    own = stream.codec_context
    name = _SEES_ALPHA.get(own.codec.canonical_name)
    says_alpha = {key.lower(): value for key, value in stream.metadata.items()}.get("alpha_mode") == "1"
    if not says_alpha or name is None or name not in av.codecs_available:
        return own
    decoder = VideoCodecContext.create(name, "r")
    if own.extradata:
        decoder.extradata = own.extradata
    return decoder  # type: ignore[return-value]


def over_white(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGBA (H, W, 4) over a white ground, (H, W, 3)."""
    colour, alpha = image[..., :3].astype(np.uint16), image[..., 3:].astype(np.uint16)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
