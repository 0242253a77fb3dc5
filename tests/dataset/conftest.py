from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cbtalk.media.clips import Clip, good_frames
from tests.helpers.videos import numbered, write_clip

MakeClips = Callable[..., Path]

SIZE = 32


def expected(path: Path, size: int = SIZE) -> np.ndarray:
    """All frames of a clip, decoded from its start."""
    return np.stack(list(good_frames(Clip("", path, ""), size)))


@pytest.fixture
def make_clips(tmp_path: Path) -> MakeClips:
    """Writes short videos of the given names, each of other images."""

    def make(*names: str, frames: int = 6, folder: str = "clips") -> Path:
        root = tmp_path / folder
        for place, name in enumerate(names):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            write_clip(root / name, [numbered(3 * place + 2 * frame) for frame in range(frames)])
        return root

    return make
