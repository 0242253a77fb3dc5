import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cbtalk.errors import InputError
from cbtalk.train.config import load_config
from cbtalk.train.data import (
    MappedFrames,
    PairLoader,
    ResidentFrames,
    StreamedFrames,
    hold_back,
    pair_loader,
    read_clips,
)
from cbtalk.train.pairs import PairSampler
from cbtalk.train.sections import AugmentConfig, DataConfig
from cbtalk.train.share import Share
from tests.helpers.training import MakeConfig

CPU = torch.device("cpu")
SIZE = 6


def frames_of(*lengths: int) -> list[np.ndarray]:
    """Clips in which every frame is different."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (length, 8, 8, 3), dtype=np.uint8) for length in lengths]


class Arrays:
    """Clips that are in memory."""

    size = 8

    def __init__(self, clips: list[np.ndarray]) -> None:
        self.clips = clips
        self.lengths = np.array([len(clip) for clip in clips])

    def read(self, number: int, frames: Sequence[int]) -> np.ndarray:
        return np.stack([self.clips[number][frame] for frame in frames])


def loader(frames: list[np.ndarray], changes: AugmentConfig | None = None, *, flip: float = 0.5) -> PairLoader:
    clips = [(f"person {index}", len(clip)) for index, clip in enumerate(frames)]
    sampler = PairSampler(clips, DataConfig(horizontal_flip=flip), seed=0)
    return PairLoader(ResidentFrames(Arrays(frames), CPU), sampler, SIZE, changes or AugmentConfig())


def images(loader: PairLoader, number: int) -> Tensor:
    return torch.stack(loader.batch(number)[:2])


def test_a_batch_holds_the_sampled_frames() -> None:
    clips = frames_of(5, 3)
    ours = loader(clips)
    source, driving, _ = ours.batch(7)
    assert source.shape == (SIZE, 3, 8, 8) and source.is_contiguous(memory_format=torch.channels_last)
    for row, pair in enumerate(ours.sampler.batch(7, SIZE)):
        for image, frame in ((source[row], pair.source), (driving[row], pair.driving)):
            pixels = clips[pair.clip][frame][:, ::-1] if pair.mirrored else clips[pair.clip][frame]
            assert np.array_equal(image.permute(1, 2, 0).add(1).mul(127.5).round().byte().numpy(), pixels)


def test_both_frames_of_a_pair_are_mirrored_together() -> None:
    clips = frames_of(5)
    for plain, mirrored in zip(images(loader(clips, flip=0.0), 1), images(loader(clips, flip=1.0), 1), strict=True):
        assert torch.equal(plain.flip(-1), mirrored)


def test_a_batch_follows_from_its_number_augmentation_included() -> None:
    changes = AugmentConfig(brightness=0.3, rotation=10.0, blur=1.0, jpeg=1.0)
    one, other = loader(frames_of(5, 3), changes), loader(frames_of(5, 3), changes)
    batches = [images(one, number) for number in range(3)]
    assert torch.equal(images(other, 2), batches[2]) and torch.equal(images(other, 0), batches[0])
    assert not torch.equal(batches[0], batches[1])


def test_workers_stream_the_same_batches_from_any_number_on() -> None:
    clips = frames_of(5, 3)
    resident = loader(clips)
    streamed = PairLoader(
        StreamedFrames(Arrays(clips), resident.sampler, SIZE, CPU, workers=2), resident.sampler, SIZE, AugmentConfig()
    )

    def both(number: int) -> tuple[Tensor, Tensor]:
        return images(resident, number), images(streamed, number)

    for number in (3, 4, 5, 11, 12, 0):
        assert torch.equal(*both(number)), number


@pytest.mark.parametrize("stream", [False, True])
def test_shares_are_parts_of_the_whole_batch(stream: bool) -> None:
    clips, changes = frames_of(5, 3), AugmentConfig(brightness=0.3, rotation=10.0, blur=1.0)
    whole = loader(clips, changes)
    parts = []
    for number in range(2):
        part = loader(clips, changes)
        part.sampler.share = Share(number, 2)
        if stream:
            part.frames = StreamedFrames(Arrays(clips), part.sampler, SIZE, CPU, workers=1)
        parts.append(images(part, 5))
    torch.testing.assert_close(torch.cat(parts, dim=1), images(whole, 5))


def test_the_configuration_chooses_streaming(make_config: MakeConfig) -> None:
    config = load_config(make_config(data={"workers": 1}))
    streamed = pair_loader(read_clips(config.data.root, config), config, CPU)
    assert isinstance(streamed.frames, StreamedFrames)
    config = load_config(make_config())
    clips = read_clips(config.data.root, config)
    mapped = pair_loader(clips, config, CPU)
    assert isinstance(mapped.frames, MappedFrames)
    mapped_images = images(mapped, 2)
    assert torch.equal(images(streamed, 2), mapped_images)
    mapped.frames = ResidentFrames(clips, CPU)
    assert torch.equal(images(mapped, 2), mapped_images)


def test_short_and_static_clips_are_held_back(
    make_config: MakeConfig, clips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "mixed"
    root.mkdir()
    for name, frames in {"moving": [0, 1, 2, 3], "static": [1, 1, 1, 1], "short": [0, 1]}.items():
        (root / name).mkdir()
        for position, frame in enumerate(frames):
            (root / name / f"{position}.png").symlink_to(clips / "ann__00" / f"{frame}.png")
    config = load_config(make_config(data={"root": str(root), "min_frames": 3, "min_change": 1.0}))
    with caplog.at_level(logging.WARNING):
        used = hold_back(read_clips(root, config), config)
    assert [used.title(number) for number in range(len(used))] == [str(root / "moving")]
    assert "static: hardly moves" in caplog.text and "short: 2 frames only" in caplog.text
    config = load_config(make_config(data={"root": str(root)}))
    assert len(hold_back(read_clips(root, config), config)) == 3
    config = load_config(make_config(data={"root": str(root), "min_frames": 5}))
    with pytest.raises(InputError, match="no clip in it that can be used"):
        hold_back(read_clips(root, config), config)
