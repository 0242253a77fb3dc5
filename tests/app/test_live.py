"""The live session: the newest frame is animated, one at a time, and a slow model leaves frames out."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cbtalk.app import live
from cbtalk.app.live import LiveFrame, LiveModel, LiveTalker
from cbtalk.errors import InputError
from cbtalk.faces import Face, Square
from cbtalk.media.crop import CropBox
from cbtalk.render.cache import RenderCache
from cbtalk.render.options import RenderOptions
from tests.helpers.videos import flat
from tests.render.fake_talker import FakeTalker

WHOLE = RenderOptions(crop=CropBox(0, 0, 48))
PORTRAIT = flat((80, 80, 80), 48, 48)  # number 20 of `image`
SECONDS = 60.0  # a wait that only a failure takes


def image(number: int) -> NDArray[np.uint8]:
    return flat((4 * number,) * 3, 48, 48)


def number_of(made: LiveFrame) -> float:
    return round(float(np.median(made.image)) / 4)


class SlowTalker(FakeTalker):
    """A model that works on an image until it is let go, and notes how many it is at."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.at_once, self.most = 0, 0

    def animate_keypoints(self, state: Any, keypoints: Any) -> torch.Tensor:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        self.begun.release()
        assert self.go.acquire(timeout=SECONDS)
        self.at_once -= 1
        return super().animate_keypoints(state, keypoints)


class Clock:
    """Goes on by one second at each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture(autouse=True)
def _face_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A face that fills each frame, but for black ones, which show nobody."""

    def faces_in(image: NDArray[np.uint8]) -> list[Face]:
        return [Face(torch.tensor([0.0, 0, 48, 48]), 1.0, torch.zeros(5, 2))] if image.any() else []

    monkeypatch.setattr(live, "faces_in", faces_in)
    monkeypatch.setattr(live, "frame", lambda image, face: Square(24, 24, 48))


def session(talker: FakeTalker, **options: Any) -> LiveTalker:
    model = LiveModel(RenderCache(lambda: talker), threading.Lock())  # type: ignore[arg-type, return-value]
    return LiveTalker(model, Path("portrait.png"), PORTRAIT, WHOLE, **options)


def shown(talker: LiveTalker) -> LiveFrame:
    """The next image, waited for."""
    for _ in range(int(SECONDS * 1000)):
        made = talker.newest()
        if made is not None:
            return made
        threading.Event().wait(0.001)
    raise AssertionError("no image came")


def test_of_frames_that_come_while_the_model_works_the_newest_alone_is_animated() -> None:
    slow = SlowTalker()
    talker = session(slow)
    talker.offer(image(10))
    assert slow.begun.acquire(timeout=SECONDS)
    for number in range(11, 40):
        talker.offer(image(number))  # returns at once: the model has not finished the first
    slow.go.release()
    assert number_of(shown(talker)) == 20  # as the portrait: relative motion starts here
    assert slow.begun.acquire(timeout=SECONDS)
    slow.go.release()
    assert number_of(shown(talker)) == 20 + (39 - 10)
    assert slow.most == 1 and len(slow.batches) == 2
    figures = talker.figures
    assert figures is not None and figures.dropped == 28


def test_latency_is_from_the_arrival_of_the_frame_that_is_shown() -> None:
    slow = SlowTalker()
    talker = session(slow, clock=Clock())
    talker.offer(image(10))  # at 1
    assert slow.begun.acquire(timeout=SECONDS)
    talker.offer(image(11))  # at 2
    talker.offer(image(12))  # at 3
    slow.go.release()
    first = shown(talker)  # ready at 4
    assert (first.arrived, first.ready) == (1, 4)
    slow.go.release()
    second = shown(talker)
    assert (second.arrived, second.ready, second.latency) == (3, 5, 2)


def test_begun_anew_motion_starts_at_the_next_frame() -> None:
    talker = session(FakeTalker())
    numbers = []
    for number in (10, 15):
        talker.offer(image(number))
        numbers.append(number_of(shown(talker)))
    talker.begin_anew()
    assert not talker.has_face
    for number in (30, 33):
        talker.offer(image(number))
        numbers.append(number_of(shown(talker)))
    assert numbers == [20, 25, 20, 23]


def test_an_image_of_the_time_before_a_new_beginning_is_not_shown() -> None:
    slow = SlowTalker()
    talker = session(slow)
    talker.offer(image(10))
    assert slow.begun.acquire(timeout=SECONDS)
    talker.begin_anew()
    talker.offer(image(30))
    for _ in range(2):
        slow.go.release()
    assert number_of(shown(talker)) == 20
    assert talker.newest() is None and len(slow.batches) == 2


def test_without_a_face_in_view_there_is_no_image_and_the_next_frame_is_looked_at() -> None:
    slow = SlowTalker()
    talker = session(slow)
    talker.offer(image(0))
    talker.offer(image(10))
    assert slow.begun.acquire(timeout=SECONDS)
    slow.go.release()
    assert number_of(shown(talker)) == 20 and talker.has_face and len(slow.batches) == 1


def test_a_failure_of_the_model_is_told_once_and_the_session_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    talker = session(FakeTalker())
    with monkeypatch.context() as broken:
        broken.setattr(live, "faces_in", lambda image: [][1])
        talker.offer(image(10))
        with pytest.raises(IndexError):
            for _ in range(int(SECONDS * 1000)):
                threading.Event().wait(0.001)
                talker.offer(image(10))
    talker.offer(image(12))
    assert shown(talker)


def test_two_sessions_take_turns_at_one_model() -> None:
    slow = SlowTalker()
    model = LiveModel(RenderCache(lambda: slow), threading.Lock())  # type: ignore[arg-type, return-value]
    both = [LiveTalker(model, Path("portrait.png"), PORTRAIT, WHOLE) for _ in range(2)]
    for talker in both:
        talker.offer(image(10))
    for _ in both:
        slow.go.release()
    assert all(number_of(shown(talker)) == 20 for talker in both)
    assert slow.most == 1


def test_a_portrait_without_a_face_is_refused_as_by_a_render(portrait: Path, make_clip: Callable[..., Path]) -> None:
    model = LiveModel(RenderCache(FakeTalker), threading.Lock())  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"portrait\.png: no face is found"):
        LiveTalker(model, portrait, PORTRAIT, RenderOptions())
