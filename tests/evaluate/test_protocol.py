import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cbtalk.errors import InputError, OutputError
from cbtalk.evaluate import protocol
from cbtalk.model.checkpoint import save_weights
from cbtalk.model.talker import Talker
from tests.model.conftest import TINY


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two folders of 64 px frames: five frames that stay the same, and three that change."""
    rng = np.random.default_rng(0)
    for name, count, changes in (("still", 5, 0), ("moving", 3, 40)):
        folder = tmp_path / "clips" / name
        folder.mkdir(parents=True)
        picture = rng.integers(40, 120, (64, 64, 3), dtype=np.uint8)
        for index in range(count):
            Image.fromarray(picture + np.uint8(changes * (index > 0))).save(folder / f"{index}.png")
    return tmp_path / "clips"


@pytest.fixture
def weights(tmp_path: Path) -> str:
    path = tmp_path / "tiny.safetensors"
    save_weights(path, Talker(TINY))
    return str(path)


def test_report(tmp_path: Path, clips: Path, weights: str) -> None:
    report = protocol.run(weights, clips, tmp_path / "figures.json", batch_size=2)
    moving = report["clips"]["moving"]
    assert moving["frames"] == 2 and report["clips"]["still"]["frames"] == 4
    assert moving["repeat"]["l1"] == pytest.approx(40 / 255, abs=1e-6)
    assert report["clips"]["still"]["repeat"]["l1"] == 0
    assert report["mean"]["repeat"]["l1"] == pytest.approx(20 / 255, abs=1e-6)  # over clips, not over frames
    assert json.loads((tmp_path / "figures.json").read_text())["mean"]["result"] == report["mean"]["result"]
    table = (tmp_path / "figures.md").read_text()
    assert f"| moving | {moving['result']['l1']:.4f} (0.1569) |" in table and "| mean |" in table


def test_batches_do_not_change_the_figures(clips: Path, weights: str) -> None:
    figures = [protocol.run(weights, clips, batch_size=size)["mean"]["result"] for size in (1, 8)]
    assert figures[0] == pytest.approx(figures[1], rel=1e-4)


def test_the_talker_sees_first_frame_and_driving_frames(
    clips: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A talker that returns its driving frames is perfect at its own size, and nearly so at another."""

    def animate(self: Talker, state: object, driving: Tensor) -> Tensor:
        return driving

    monkeypatch.setattr(Talker, "animate", animate)
    assert protocol.run(weights, clips)["mean"]["result"]["l1"] == 0
    with torch.no_grad():
        larger = protocol.run(weights, clips, size=128)["mean"]
    assert 0 < larger["result"]["l1"] < 0.04 < larger["repeat"]["l1"]


@pytest.mark.parametrize("name", ["figures.md", "absent/figures.json"])
def test_an_output_that_cannot_be_is_refused_before_the_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=name):
        protocol.run("absent weights", tmp_path, tmp_path / name)


def test_a_clip_of_one_frame(tmp_path: Path, weights: str) -> None:
    (tmp_path / "one" / "clip").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(tmp_path / "one" / "clip" / "0.png")
    with pytest.raises(InputError, match="one frame only"):
        protocol.run(weights, tmp_path / "one")
