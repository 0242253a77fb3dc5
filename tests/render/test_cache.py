"""Renders share sources and motions: each is worked out once, and the videos are those of renders on their own."""

import gc
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image

from cbtalk.errors import InputError
from cbtalk.model.talker import Talker
from cbtalk.render import DrivingOptions, RenderOptions, render_video
from cbtalk.render.cache import RenderCache
from tests.render.conftest import numbers_of
from tests.render.fake_talker import FakeTalker, level

PLAIN = RenderOptions(crop="centre", driving=DrivingOptions(crop="centre"))


def sharing(talker: FakeTalker, motions: Path | None = None, motion_bytes: int = 0) -> RenderCache:
    return RenderCache(lambda: cast(Talker, talker), motions, motion_bytes)


class Counting(FakeTalker):
    """Counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.sources, self.frames = 0, 0

    def keypoints(self, image):  # type: ignore[no-untyped-def]
        self.frames += len(image)
        return super().keypoints(image)

    def encode_source(self, source):  # type: ignore[no-untyped-def]
        self.sources += 1
        return super().encode_source(source)


@pytest.fixture
def talker() -> Counting:
    return Counting()


def test_sources_and_motions_are_worked_out_once(
    talker: Counting, tmp_path: Path, portrait: Path, make_clip: Callable[..., Path]
) -> None:
    shared = sharing(talker, tmp_path / "motions", 1 << 20)
    first, second = make_clip([10, 20, 30, 40], "1.mp4"), make_clip([5, 15, 25], "2.mp4")
    expected = []
    for clip in (first, second):
        render_video(portrait, clip, tmp_path / "alone.mp4", PLAIN, cache=sharing(FakeTalker()))
        expected.append(numbers_of(tmp_path / "alone.mp4"))
    for _ in range(2):
        for clip, numbers in zip((first, second), expected, strict=True):
            report = render_video(portrait, clip, tmp_path / "out.mp4", PLAIN, cache=shared)
            assert numbers_of(tmp_path / "out.mp4") == numbers and report.frames == len(numbers)
    assert talker.sources == 1
    assert talker.frames == 1 + 4 + 3  # the source, and every driving frame


def test_motions_outlive_the_process_and_follow_content_and_options(
    talker: Counting, tmp_path: Path, portrait: Path, make_clip: Callable[..., Path]
) -> None:
    clip = make_clip([10, 20, 30, 40])

    def frames_seen(options: RenderOptions = PLAIN, path: Path = clip) -> int:
        before = talker.frames
        shared = sharing(talker, tmp_path / "motions", 1 << 20)
        render_video(portrait, path, tmp_path / "out.mp4", options, cache=shared)
        return talker.frames - before - 1

    assert frames_seen() == 4
    assert frames_seen() == 0
    assert frames_seen(path=clip.rename(tmp_path / "renamed.mp4")) == 0
    other_batches = replace(PLAIN, driving=replace(PLAIN.driving, batch_size=3))
    assert frames_seen(other_batches, tmp_path / "renamed.mp4") == 0
    shorter = replace(PLAIN, driving=replace(PLAIN.driving, max_frames=2))
    assert frames_seen(shorter, tmp_path / "renamed.mp4") == 2
    assert frames_seen(path=make_clip([10, 20, 30, 50])) == 4
    damaged = next((tmp_path / "motions").iterdir())
    for path in (tmp_path / "motions").iterdir():
        path.write_bytes(b"damaged")
    assert damaged.exists() and frames_seen() == 4


def test_a_changed_source_is_read_again(
    talker: Counting, tmp_path: Path, portrait: Path, make_clip: Callable[..., Path]
) -> None:
    shared = sharing(talker)
    clip = make_clip([10, 10])
    render_video(portrait, clip, tmp_path / "out.mp4", PLAIN, cache=shared)
    before = numbers_of(tmp_path / "out.mp4")
    Image.fromarray(np.full((60, 60, 3), 160, np.uint8)).save(portrait)
    render_video(portrait, clip, tmp_path / "out.mp4", PLAIN, cache=shared)
    assert numbers_of(tmp_path / "out.mp4") != before and talker.sources == 2


def test_notes_are_told_again(talker: Counting, tmp_path: Path, portrait: Path, make_clip: Callable[..., Path]) -> None:
    clip = make_clip([10, 20, 30])
    shared = sharing(talker, tmp_path / "motions", 1 << 20)
    talker.blind_to = level(30)
    reports = [render_video(portrait, clip, tmp_path / "out.mp4", PLAIN, cache=shared) for _ in range(2)]
    assert reports[0].notes == reports[1].notes and "not finite" in reports[0].notes[0]


def test_the_longest_unused_motion_goes_first(
    talker: Counting, tmp_path: Path, portrait: Path, make_clip: Callable[..., Path]
) -> None:
    motions = tmp_path / "motions"
    clips = [make_clip([number, 20], f"{number}.mp4") for number in (1, 2, 3)]
    render_video(portrait, clips[0], tmp_path / "out.mp4", PLAIN, cache=sharing(talker, motions, 1 << 20))
    (oldest,) = motions.iterdir()
    room = 2 * oldest.stat().st_size + 100
    os.utime(oldest, (1, 1))
    shared = sharing(talker, motions, room)
    for clip in clips[1:]:
        render_video(portrait, clip, tmp_path / "out.mp4", PLAIN, cache=shared)
    assert len(list(motions.iterdir())) == 2 and not oldest.exists()


def test_the_last_source_alone_is_kept(
    talker: Counting, tmp_path: Path, portrait: Path, make_clip: Callable[..., Path]
) -> None:
    shared, clip = sharing(talker), make_clip([10, 20])
    other = tmp_path / "other.png"
    other.write_bytes(portrait.read_bytes())
    for source, encoded in ((portrait, 1), (portrait, 1), (other, 2), (portrait, 3)):
        render_video(source, clip, tmp_path / "out.mp4", PLAIN, cache=shared)
        assert talker.sources == encoded


def test_faults_of_the_inputs_show_before_the_model_is_loaded(tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    def never() -> FakeTalker:
        raise AssertionError("the model is loaded")

    with pytest.raises(InputError, match="no such file"):
        render_video(
            tmp_path / "none.png",
            make_clip([1, 2]),
            tmp_path / "out.mp4",
            PLAIN,
            cache=RenderCache(cast(Callable[[], Talker], never)),
        )


OF_A_RENDER = {"av", "cbtalk", "PIL", "numpy"}  # what else is collected here belongs to other tests of the process


def test_a_render_leaves_nothing_that_waits_for_the_garbage_collector(
    talker: Counting, tmp_path: Path, portrait: Path, make_clip: Callable[..., Path]
) -> None:
    """Frames, tensors and files that hold each other would pile up over a batch: a full collection is rare."""
    shared, clip = sharing(talker), make_clip([10, 20, 30])
    for motion in ("relative", "absolute"):
        render_video(portrait, clip, tmp_path / "out.mp4", replace(PLAIN, motion=motion), cache=shared)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        render_video(portrait, make_clip([5, 15], "other.mp4"), tmp_path / "out.mp4", PLAIN, cache=shared)
        gc.collect()
        left = [repr(found) for found in gc.garbage if type(found).__module__.split(".")[0] in OF_A_RENDER]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert left == []
