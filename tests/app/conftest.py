import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from cbtalk.app.limits import Limits
from tests.helpers.videos import numbered, write_clip

LIMITS = Limits(upload=1, frames=10, megapixels=1, jobs=3)
CLIP_FRAMES = 4


def free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


@pytest.fixture
def face(tmp_path: Path) -> Path:
    """A public-domain portrait."""
    data = pytest.importorskip("skimage.data", reason="scikit-image, which carries the portrait, is not installed")
    path = tmp_path / "face.png"
    Image.fromarray(data.astronaut()).save(path)
    return path


@pytest.fixture
def make_clip(tmp_path: Path) -> Callable[..., Path]:
    def make(frames: int = CLIP_FRAMES, name: str = "driving.mp4") -> Path:
        return write_clip(tmp_path / name, [numbered(number) for number in range(frames)])

    return make
