from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cbtalk.app.limits import Limits
from cbtalk.model.checkpoint import save_weights
from cbtalk.model.talker import Talker
from tests.helpers.talkers import TINY
from tests.helpers.videos import numbered, write_clip

LIMITS = Limits(upload=1, frames=10, megapixels=1, jobs=3)
CLIP_FRAMES = 4


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of a model that is small enough to run in every test."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, Talker(TINY).eval())
    return path


@pytest.fixture
def portrait(tmp_path: Path) -> Path:
    """A picture without a face."""
    path = tmp_path / "portrait.png"
    Image.fromarray(np.full((60, 60, 3), 80, np.uint8)).save(path)
    return path


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
