"""Fixtures that more than one folder uses. cbtalk is imported inside them: what plants a fault comes before that."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

# Without a GPU, Triton's interpreter runs the kernels; it has to be chosen before triton is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# The golden arrays and the clips, where the checkout lies beside them; the other tests do not need them.
_SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    if not _SHARED.is_dir():
        pytest.skip(f"the folder of golden arrays and clips is not at {_SHARED}")
    return _SHARED


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of a tiny talker."""
    from cbtalk.model.checkpoint import save_weights
    from cbtalk.model.talker import Talker
    from tests.helpers.talkers import TINY

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, Talker(TINY).eval())
    return path


@pytest.fixture
def portrait(tmp_path: Path) -> Path:
    """A grey image without a face, number 20 of `tests.helpers.videos.numbered`."""
    path = tmp_path / "portrait.png"
    Image.fromarray(np.full((60, 60, 3), 80, np.uint8)).save(path)
    return path


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips of two people, as folders of frames in which a square moves."""
    root = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for name in ("ann__00", "ann__01", "bob__00"):
        (root / name).mkdir()
        background = rng.integers(0, 255, (72, 72, 3), dtype=np.uint8)
        for frame in range(4):
            image = background.copy()
            image[20:40, 10 + 6 * frame : 30 + 6 * frame] = 200
            Image.fromarray(image).save(root / name / f"{frame}.png")
    return root


@pytest.fixture
def make_config(tmp_path: Path, clips: Path) -> Callable[..., Path]:
    """Writes the configuration of a tiny run; sections given as keywords change single keys."""
    from tests.helpers.talkers import TINY

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


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("benchmark_only", default=True):
        config.option.benchmark_disable = True  # one call is a test, no measurement to report
    # More threads than cores (several test processes on one machine) makes everything slower than one thread.
    torch.set_num_threads(min(torch.get_num_threads(), len(os.sched_getaffinity(0))))
