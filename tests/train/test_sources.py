"""Training reads the same batches from decoded frames, from the clips' own files and from shards."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cbtalk.dataset import FrameOptions, write_shards
from cbtalk.errors import ConfigError, InputError
from cbtalk.train import landmarks, train_talker
from cbtalk.train.config import load_config
from cbtalk.train.data import Batch, pair_loader, read_clips
from tests.helpers.training import MakeConfig
from tests.helpers.videos import numbered, write_clip
from tests.train.test_landmarks import FakeMesh

CPU = torch.device("cpu")
SIZE = 64


@pytest.fixture
def videos(tmp_path: Path, clips: Path) -> Path:
    """Two videos and a folder of frames."""
    root = tmp_path / "videos"
    root.mkdir()
    (root / "ann__00").symlink_to(clips / "ann__00")
    for name in ("ann__01.mp4", "bob__00.mp4"):
        images = [numbered(number) for number in range(len(name), 50)]
        write_clip(root / name, images, options={"g": "8", "bf": "2"})
    return root


def batches(make_config: MakeConfig, root: Path, **data: object) -> list[Batch]:
    path = make_config(
        model={"keypoints": 16, "image_size": SIZE},
        data={"root": str(root), "cache": str(root.parent / "cache"), "expressive_pairs": 0.3, **data},
        loss={"guidance": 1.0},
        guidance={"model": str(root.parent / "mesh.tflite")},
        run={"batch_size": 6},
    )
    config = load_config(path)
    loader = pair_loader(read_clips(config.data.root, config), config, CPU)
    return [loader.batch(number) for number in range(3)]


def test_every_source_gives_the_same_batches(
    make_config: MakeConfig, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images, bit by bit, and the points of faces, by which expressive pairs are drawn."""
    monkeypatch.setattr(landmarks, "FaceMesh", FakeMesh)
    (tmp_path / "mesh.tflite").touch()
    write_shards(videos, tmp_path / "shards", FrameOptions(SIZE, "png"))
    decoded = batches(make_config, videos)
    for others in (
        batches(make_config, videos, source="files", workers=2),
        batches(make_config, tmp_path / "shards", workers=1),
    ):
        for ours, theirs in zip(decoded, others, strict=True):
            assert torch.equal(ours.source, theirs.source) and torch.equal(ours.driving, theirs.driving)
            assert ours.points is not None and theirs.points is not None
            np.testing.assert_array_equal(ours.points.numpy(), theirs.points.numpy())


def test_a_run_from_shards_is_that_from_files(make_config: MakeConfig, videos: Path, tmp_path: Path) -> None:
    write_shards(videos, tmp_path / "shards", FrameOptions(SIZE, "png"))
    runs = {
        "decoded": {"root": str(videos)},
        "files": {"root": str(videos), "source": "files", "workers": 1},
        "shards": {"root": str(tmp_path / "shards"), "workers": 1},
    }
    weights = [load_file(train_talker(make_config(name, data=data), max_steps=2)) for name, data in runs.items()]
    for name, value in weights[0].items():
        assert all(torch.equal(others[name], value) for others in weights[1:]), name


def test_what_is_read_when_needed_needs_processes_that_read(
    make_config: MakeConfig, videos: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"data\.source files needs data\.workers of 1 or more"):
        load_config(make_config(data={"source": "files"}))
    write_shards(videos, tmp_path / "shards", FrameOptions(SIZE, 95))
    with pytest.raises(ConfigError, match=r"shards holds shards: set data\.workers to 1 or more"):
        train_talker(make_config(data={"root": str(tmp_path / "shards")}))


def test_a_file_that_goes_away_ends_the_run_with_one_line(
    make_config: MakeConfig, videos: Path, tmp_path: Path
) -> None:
    config = load_config(make_config(data={"root": str(videos), "source": "files", "workers": 1}))
    loader = pair_loader(read_clips(videos, config), config, CPU)
    for path in videos.iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"(ann__01|bob__00)\.mp4: no such file[^\n]*$"):
        for number in range(30):
            loader.batch(number)
