from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cbtalk.media.video_reader import Frame, open_video
from cbtalk.render import video
from tests.helpers.videos import number_of, numbered, write_clip
from tests.render.fake_talker import FakeTalker


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTalker:
    """The model that every render of the test gets."""
    talker = FakeTalker()
    monkeypatch.setattr(video, "load", lambda weights, device: talker)
    return talker


MARGIN = 48  # px at both sides of a driving image, in which nothing happens but a cut


@pytest.fixture
def make_clip(tmp_path: Path) -> Callable[..., Path]:
    """Writes a driving video that shows these numbers; new scenes begin with the frames `cuts`."""

    def make(numbers: Sequence[int], name: str = "driving.mp4", cuts: Sequence[int] = (), **options: Any) -> Path:
        images = []
        for index, number in enumerate(numbers):
            margin = 200 if sum(cut <= index for cut in cuts) % 2 else 60
            sides = ((0, 0), (MARGIN, MARGIN), (0, 0))
            images.append(np.pad(numbered(number), sides, constant_values=margin))
        return write_clip(tmp_path / name, images, **options)

    return make


def frames_of(path: Path) -> list[Frame]:
    with open_video(path) as reader:
        frames = list(reader)
    assert all(isinstance(frame, Frame) for frame in frames)
    return [frame for frame in frames if isinstance(frame, Frame)]


def numbers_of(path: Path) -> list[int]:
    return [number_of(frame.image) for frame in frames_of(path)]


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
