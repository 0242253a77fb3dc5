import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbtalk.app.limits import Limits
from cbtalk.app.motions import MOTIONS
from cbtalk.errors import ConfigError, InputError
from cbtalk.render import DrivingOptions, RenderOptions
from tests.app.conftest import LIMITS


def test_an_image_of_too_many_pixels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.fromarray(np.zeros((1000, 1001, 3), np.uint8)).save(path)
    with pytest.raises(InputError, match=r"large\.png: 1001 x 1000 pixels are more than 1 million"):
        LIMITS.read_portrait(path)


def test_a_clip_within_the_limit_is_bounded_by_it(make_clip: Callable[..., Path]) -> None:
    assert LIMITS.bounded(make_clip(10), RenderOptions()).driving.max_frames == 10


def test_a_longer_clip_is_refused_and_a_part_of_it_is_not(make_clip: Callable[..., Path]) -> None:
    clip = make_clip(11)
    with pytest.raises(InputError, match=r"driving\.mp4: 11 frames are more than 10; take a part"):
        LIMITS.bounded(clip, RenderOptions())
    part = RenderOptions(driving=DrivingOptions(duration=0.2))
    assert LIMITS.bounded(clip, part).driving.duration == 0.2
    few = RenderOptions(driving=DrivingOptions(max_frames=7))
    assert LIMITS.bounded(clip, few).driving.max_frames == 7


def test_a_longer_motion_file_is_refused_and_a_part_of_it_is_not() -> None:
    nod = MOTIONS["nod"].path
    with pytest.raises(InputError, match="75 frames are more than 10"):
        LIMITS.bounded(nod, RenderOptions())
    assert LIMITS.bounded(nod, RenderOptions(driving=DrivingOptions(start=2.8)))


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Limits)])
def test_a_limit_below_one_is_refused_by_the_name_of_its_option(name: str) -> None:
    with pytest.raises(ConfigError, match=f"--max-{name} 0: must be 1 or more"):
        dataclasses.replace(LIMITS, **{name: 0})
