from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.helpers.videos import numbered, write_clip
from tests.media.test_video_writer import read, write


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def noisy(count: int) -> list[NDArray[np.uint8]]:
    """Images whose motion and detail give an encoder choices."""
    grain = np.random.default_rng(0).integers(0, 40, (count, 240, 320, 3), dtype=np.uint8)
    return [grain[i] + numbered(i, 320, 240) for i in range(count)]


def test_the_videos_of_a_worker_are_those_of_a_process_with_more_threads(tmp_path: Path, threads: None) -> None:
    """Neither what is read from a video nor what is written depends on the share of the machine."""
    clip = write_clip(tmp_path / "clip.mp4", noisy(12))
    frames, files = [], []
    for count in (1, 3):
        torch.set_num_threads(count)
        frames.append([frame.image for frame in read(clip)])
        write(tmp_path / f"{count}.mp4", noisy(12))
        files.append((tmp_path / f"{count}.mp4").read_bytes())
    np.testing.assert_array_equal(frames[0], frames[1])
    assert len(frames[0]) == 12 and files[0] == files[1]
