"""A batch that half precision leaves not finite is rendered again in float32, and that is told."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cbtalk.model import half
from cbtalk.model.talker import Talker
from cbtalk.render import DrivingOptions, RenderOptions, render_video
from cbtalk.render.animation import Repetition
from cbtalk.render.cache import RenderCache
from cbtalk.render.engine import Engine
from tests.golden import weights
from tests.helpers.talkers import TINY
from tests.render.conftest import numbers_of
from tests.render.fake_talker import FakeTalker, level

MakeClip = Callable[..., Path]
ABSOLUTE = RenderOptions(motion="absolute", crop="centre", driving=DrivingOptions(crop="centre", batch_size=2))


class Loads:
    """Gives a talker in float32, and counts how often it is loaded."""

    def __init__(self, talker: FakeTalker | Talker) -> None:
        self.talker, self.count = talker, 0

    def __call__(self) -> Talker:
        self.count += 1
        return cast(Talker, self.talker)


def render(portrait: Path, driving: Path, output: Path, half_dumb: int, float32_dumb: int | None = None):  # type: ignore[no-untyped-def]
    """A render by a talker in half precision that has no image for one number; another may have none in float32."""
    in_half = FakeTalker(dumb_at=level(half_dumb))
    loads = Loads(FakeTalker(dumb_at=None if float32_dumb is None else level(float32_dumb)))
    shared = RenderCache(lambda: cast(Talker, in_half), make_float32=loads)
    return render_video(portrait, driving, output, ABSOLUTE, cache=shared), loads


def test_the_batch_is_repeated_and_told(portrait: Path, make_clip: MakeClip, tmp_path: Path) -> None:
    numbers = [3, 9, 15, 21, 27, 9, 33]
    report, loads = render(portrait, make_clip(numbers), tmp_path / "out.mp4", half_dumb=9)
    assert numbers_of(tmp_path / "out.mp4") == numbers
    assert report.repeated == 4 and report.not_finite == 0  # two batches of two
    assert loads.count == 1
    assert report.warnings == ["4 frames computed again in float32: half precision left some not finite"]


def test_float32_is_not_loaded_without_need(portrait: Path, make_clip: MakeClip, tmp_path: Path) -> None:
    report, loads = render(portrait, make_clip([3, 15, 21]), tmp_path / "out.mp4", half_dumb=9)
    assert (loads.count, report.repeated, report.warnings) == (0, 0, [])


def test_what_float32_does_not_mend_is_held(portrait: Path, make_clip: MakeClip, tmp_path: Path) -> None:
    report, _ = render(portrait, make_clip([3, 9, 15, 21]), tmp_path / "out.mp4", half_dumb=9, float32_dumb=9)
    assert numbers_of(tmp_path / "out.mp4") == [3, 3, 15, 21]
    assert report.repeated == 2 and report.not_finite == 1


def overflowing() -> Talker:
    """A talker whose features at the finest scale are too large for float16."""
    talker = Talker(TINY).eval()
    weights.fill(talker.net_g)
    weights.fill(talker.motion_estimator)
    with torch.no_grad():
        talker.net_g.fuse_ms_dict[str(TINY.image_size)].get_parameter("weight").mul_(1e5)
    return talker


def images(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("own_sources", [False, True])
def test_a_float16_overflow_gives_the_images_of_float32(own_sources: bool) -> None:
    exact, in_half = overflowing(), half.cast(overflowing(), torch.float16)
    loads = Loads(exact)
    sources, batches = [], []
    for engine in (
        Engine(exact, images(1)[0]),
        Engine(in_half, images(1)[0], in_float32=Repetition(loads)),
        Engine(in_half, images(1)[0]),
    ):
        if own_sources:
            engine.take_sources(images(2))
        sources.append(engine.unmoved())
        batches.append([engine.render(engine.detect(images(2))) for _ in range(2)])
    np.testing.assert_array_equal(sources[1], sources[0])
    for one, other, without in zip(*batches, strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        assert (one.held, other.held, other.repeated) == (0, 0, 2)
        assert (without.held, without.repeated) == (2, 0)
