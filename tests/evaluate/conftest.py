from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cbtalk.evaluate.extractors import Extractors

MakeClip = Callable[[str, list[int]], Path]


class Brightness:
    """Extractor of images of one brightness: a face is there where they are not black, the level moves two points.

    One moves by the difference of levels, one by twice that, and one stays: their mean is the difference.
    """

    name = "brightness"
    same_person = 30.0
    regions = {"first": slice(0, 1)}  # noqa: RUF012

    def landmarks(self, frame: NDArray[np.uint8]) -> NDArray[np.float64] | None:
        level = float(frame.mean())
        return np.array([[level, 0.0], [0.0, 2 * level], [30.0, 30.0]]) if level else None

    def openings(self, points: NDArray[np.floating]) -> dict[str, float]:
        return {"mouth": float(points[0, 0]) / 100}

    def identity(self, frame: NDArray[np.uint8]) -> NDArray[np.float64] | None:
        level = float(frame.mean())
        return np.array([level, 100.0]) if level else None


class Angles:
    """A head that turns by a degree a level, past 180 too, and tilts nowhere."""

    name = "brightness"

    def vector(self, frame: NDArray[np.uint8]) -> NDArray[np.float64] | None:
        level = float(frame.mean())
        return np.array([(level + 90) % 360 - 180, 0.0, 0.0]) if level else None


class Opening:
    """A mouth that is open by the level."""

    name = "brightness"

    def vector(self, frame: NDArray[np.uint8]) -> NDArray[np.float64] | None:
        level = float(frame.mean())
        return np.array([level / 100]) if level else None


@pytest.fixture
def extractors() -> Extractors:
    absent = {"eyes_of_an_eagle": "there is no eagle"}
    return Extractors([Brightness()], [Brightness()], absent, [Angles()], [Opening()])


@pytest.fixture
def make_clip(tmp_path: Path) -> MakeClip:
    """A folder of 64 px frames of these brightnesses, in the folder "clips"; returns that folder."""

    def make(name: str, levels: list[int]) -> Path:
        folder = tmp_path / "clips" / name
        folder.mkdir(parents=True)
        for index, level in enumerate(levels):
            Image.new("RGB", (64, 64), (level, level, level)).save(folder / f"{index}.png")
        return tmp_path / "clips"

    return make


@pytest.fixture
def weights(weights: Path) -> str:
    """As the command line has it."""
    return str(weights)
