from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.model.conftest import TINY

MakeConfig = Callable[..., Path]


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips of two people, as folders of frames in which a square moves."""
    root = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for name in ("ann__00", "ann__01", "bob__00"):
        (root / name).mkdir()
        background = rng.integers(0, 255, (72, 72, 3), dtype=np.uint8)
        for frame in range(4):
            picture = background.copy()
            picture[20:40, 10 + 6 * frame : 30 + 6 * frame] = 200
            Image.fromarray(picture).save(root / name / f"{frame}.png")
    return root


@pytest.fixture
def make_config(tmp_path: Path, clips: Path) -> MakeConfig:
    """Writes the configuration of a tiny run; sections given as keywords change single keys."""

    def make(name: str = "run", **sections: dict[str, Any]) -> Path:
        values: dict[str, Any] = {
            "model": TINY.to_dict(),
            "data": {"root": str(clips), "cache": str(clips.parent / "decoded")},
            "loss": {"perceptual": 0.0, "low_resolution": 0.0},
            "adversarial": {"weight": 0.0},
            "run": {
                "output": str(tmp_path / name),
                "steps": 100,
                "batch_size": 2,
                "device": "cpu",
                "log_every": 1,
                "sample_every": 1000,
                "checkpoint_every": 1000,
            },
        }
        for section, changes in sections.items():
            values[section] = {**values.get(section, {}), **changes}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return make
