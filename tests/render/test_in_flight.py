"""Batches in flight: nothing that is queued reads the device back, and the encoder's thread does the waiting."""

import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cbtalk.model import dense_motion, keypoints, transfers
from cbtalk.model.keypoints import Keypoints
from cbtalk.model.talker import Talker
from cbtalk.model.transfers import Download
from cbtalk.render import DrivingOptions, RenderOptions, engine, render_video
from cbtalk.render.animation import Animator
from cbtalk.render.engine import Engine
from tests.helpers.talkers import TINY
from tests.render.conftest import numbers_of
from tests.render.fake_talker import FakeTalker
from tests.render.test_engine import images

MakeClip = Callable[..., Path]


@pytest.mark.parametrize("own_sources", [False, True])
@pytest.mark.parametrize("relative", [False, True])
def test_a_batch_is_queued_without_reading_anything_back(
    monkeypatch: pytest.MonkeyPatch, relative: bool, own_sources: bool
) -> None:
    """On the device "meta" there is nothing to read: .item(), .cpu(), bool(), nonzero() and the like are errors."""
    for module in (keypoints, dense_motion):  # "meta" has no autocast
        monkeypatch.setattr(module, "without_autocast", lambda tensor: nullcontext())
    monkeypatch.setattr(engine, "download", lambda *tensors: Download(list(tensors)))
    talker = Talker(TINY).eval().to("meta")
    with monkeypatch.context() as patch:
        patch.setattr(engine, "is_finite", lambda keypoints: torch.ones(1, dtype=torch.bool))  # read once, of a source
        on_meta = Engine(talker, images(1)[0], relative=relative)
    for scenes in ([0, 0, 1], [1, 2, 1], None):
        if own_sources:
            on_meta.take_sources(images(3))
        submitted = on_meta.submit(on_meta.detect(images(3)), scenes)
        frames, finite, held = submitted.download.wait()
        assert frames.is_meta and frames.shape == (3, 64, 64, 3) and frames.dtype == torch.uint8
        assert finite.shape == held.shape == (3,)
    with pytest.raises(RuntimeError):
        bool(finite.all())


@pytest.mark.parametrize("motion", ["relative", "absolute"])
def test_the_next_batch_is_begun_before_the_one_before_is_there(
    monkeypatch: pytest.MonkeyPatch, fake: FakeTalker, portrait: Path, make_clip: MakeClip, tmp_path: Path, motion: str
) -> None:
    begun = threading.Semaphore(0)
    waits: list[bool] = []
    submit, wait = Engine.submit, Download.wait

    def counted(self: Engine, *arguments: object) -> engine.Submitted:
        begun.release()
        return submit(self, *arguments)  # type: ignore[arg-type]

    def late(self: Download) -> list[Tensor]:
        if not waits:
            begun.acquire()
            waits.append(begun.acquire(timeout=30))  # as long as a second batch takes to be begun
        return wait(self)

    monkeypatch.setattr(Engine, "submit", counted)
    monkeypatch.setattr(transfers.Download, "wait", late)
    options = RenderOptions(
        motion=motion,  # type: ignore[arg-type]
        crop="centre",
        driving=DrivingOptions(crop="centre", batch_size=2),
    )
    numbers = [20, 25, 30, 28, 24, 22]
    render_video(portrait, make_clip(numbers), tmp_path / "out.mp4", options)
    assert waits == [True]
    assert numbers_of(tmp_path / "out.mp4") == numbers  # the portrait shows 20 too


def test_batches_in_flight_are_those_of_one_after_the_other() -> None:
    talker = FakeTalker(blind_to=0.5)
    values = torch.linspace(-0.6, 0.9, 12).view(12, 1, 1, 1).expand(-1, 3, 48, 48).clone()
    values[[0, 5, 9]] = 0.5
    found = talker.keypoints(values)
    parts = [Keypoints(*(part[a:b] for part in found)) for a, b in ((0, 1), (1, 6), (6, 8), (8, 12))]
    scenes = [[0], [0, 0, 1, 1, 1], [1, 0], [2, 2, 2, 2]]
    source = torch.full((48, 48, 3), 140, dtype=torch.uint8).numpy()
    one, other = (Engine(talker, source, animator=Animator(talker)) for _ in range(2))  # type: ignore[arg-type]
    submitted = [one.submit(part, scene) for part, scene in zip(parts, scenes, strict=True)]
    for batch, part, scene in zip(submitted, parts, scenes, strict=True):
        first, second = one.finish(batch), other.render(part, scene)
        assert (first.images == second.images).all() and first.held == second.held
