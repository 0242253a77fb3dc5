from pathlib import Path

import pytest
import torch

from bench.memory import peaks
from cbtalk.model.checkpoint import save_weights
from cbtalk.model.talker import Talker
from tests.helpers.talkers import TINY


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"paste": True}, {"paste": True, "source_video": True}])
def test_memory_does_not_grow_with_the_length_of_the_video(tmp_path: Path, options: dict[str, bool]) -> None:
    """Six frames a second keep it short; 360 decoded frames of 256 x 256 are 70 MB, and would be seen."""
    torch.manual_seed(0)
    save_weights(tmp_path / "tiny.safetensors", Talker(TINY).eval())
    short, long = peaks(str(tmp_path / "tiny.safetensors"), rate=6, **options)
    assert long < 1.05 * short
