"""The stretches of a scene that become clips, and the reasons why others do not."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cbtalk.faces import Face
from cbtalk.prepare.options import PrepareOptions
from cbtalk.prepare.plan import plan_scene
from cbtalk.prepare.sightings import INTERVAL, Look, Scene
from cbtalk.prepare.stretch import Reason, Stretch

SIZE = (1280, 720)
OPTIONS = PrepareOptions(min_seconds=2, max_seconds=10)

Place = tuple[float, float, float]  # middle of the box, and its height
Walk = Callable[[float], Place | None]  # by the time in seconds


def face(x: float, y: float, height: float) -> Face:
    half = torch.tensor([0.4 * height, 0.5 * height])
    centre = torch.tensor([x, y])
    return Face(torch.cat((centre - half, centre + half)), 0.9, torch.zeros(5, 2))


def scene(walks: Sequence[Walk], seconds: float) -> Scene:
    times = [number * INTERVAL for number in range(round(seconds / INTERVAL))]
    looks = [Look(time, [face(*place) for walk in walks if (place := walk(time))]) for time in times]
    return Scene(looks, seconds)


def planned(*walks: Walk, seconds: float, options: PrepareOptions = OPTIONS) -> list[Stretch]:
    return plan_scene(scene(walks, seconds), SIZE, options)


def sits(x: float, y: float = 360, height: float = 150) -> Walk:
    return lambda _: (x, y, height)


def reasons(stretches: Sequence[Stretch]) -> list[Reason | None]:
    return [stretch.reason for stretch in stretches]


def test_who_sits_still_gives_one_clip_of_the_whole_scene() -> None:
    (only,) = planned(sits(400), seconds=6)
    assert (only.start, only.end, only.reason) == (0, 6, None)
    assert only.square is not None and only.face == pytest.approx(150)
    assert only.square.side == pytest.approx(150 / 0.692)
    assert (only.square.x, only.square.y) == pytest.approx((400, 360), abs=1)


def test_two_people_apart_give_a_clip_each() -> None:
    found = planned(sits(300), sits(900), seconds=6)
    assert reasons(found) == [None, None]
    assert sorted(round(stretch.square.x) for stretch in found if stretch.square) == [300, 900]


def test_two_heads_together_are_left_out() -> None:
    assert set(reasons(planned(sits(400), sits(520), seconds=6))) == {Reason.SEVERAL}


def test_around_a_passer_by_there_are_clips() -> None:
    def passes(time: float) -> Place | None:
        return (490, 360, 140) if 5 <= time < 6 else None

    first, crowded, second = (s for s in planned(sits(400), passes, seconds=11) if s.seconds > 1)
    assert (first.reason, crowded.reason, second.reason) == (None, Reason.SEVERAL, None)
    assert first.end <= 5 and second.start >= 6 and second.end == 11
    assert first.end == crowded.start and crowded.end == second.start


def test_one_find_alone_is_no_person() -> None:
    def once(time: float) -> Place | None:
        return (520, 360, 140) if abs(time - 3) < 0.01 else None

    assert reasons([s for s in planned(sits(400), once, seconds=6) if s.seconds > 1]) == [None]


def test_who_walks_through_the_image_is_followed_by_several_squares() -> None:
    def walks(time: float) -> Place:
        return 200 + 25 * time, 360, 150

    found = planned(walks, seconds=20)
    assert len(found) > 4 and reasons(found[:-1]) == [None] * (len(found) - 1)
    assert found[0].start == 0 and found[-1].end == 20
    assert all(before.end == after.start for before, after in pairwise(found))
    for stretch in found:
        assert stretch.square is not None
        for time in (stretch.start, stretch.end):
            assert abs(walks(time)[0] - stretch.square.x) + 60 <= stretch.square.side * 0.53 + 1


def test_who_comes_nearer_gets_a_larger_square_in_time() -> None:
    found = planned(lambda time: (640, 360, 100 + 20 * time), seconds=10)
    sides = [stretch.square.side for stretch in found if stretch.square]
    assert len(sides) > 1 and sides == sorted(sides)


def test_what_is_longer_is_divided_into_equal_parts() -> None:
    found = planned(sits(400), seconds=24)
    assert reasons(found) == [None] * 3
    assert all(stretch.seconds == pytest.approx(8, abs=INTERVAL) for stretch in found)


@pytest.mark.parametrize(("gap", "clips"), [(0.8, 1), (1.4, 2)])
def test_a_face_may_be_lost_for_a_moment(gap: float, clips: int) -> None:
    def hides(time: float) -> Place | None:
        return None if 3 <= time < 3 + gap - INTERVAL else (400, 360, 150)

    found = [stretch for stretch in planned(hides, seconds=8) if stretch.reason is None]
    assert len(found) == clips


def test_a_single_wrong_box_splits_nothing() -> None:
    def mistaken(time: float) -> Place:
        return (400, 360, 300) if abs(time - 3) < 0.01 else (400, 360, 150)

    assert reasons(planned(mistaken, seconds=6)) == [None]


@pytest.mark.parametrize(
    ("walk", "seconds", "reason"),
    [
        (sits(400), 1.6, Reason.SHORT),
        (sits(400, height=80), 6, Reason.SMALL),
        (sits(60), 6, Reason.EDGE),
        (lambda _: None, 6, Reason.NO_FACE),
    ],
)
def test_what_is_left_out_has_its_reason(walk: Walk, seconds: float, reason: Reason) -> None:
    (only,) = planned(walk, seconds=seconds)
    assert only.reason is reason and only.seconds == pytest.approx(seconds)


def test_a_larger_clip_needs_a_larger_face() -> None:
    assert reasons(planned(sits(400), seconds=6, options=PrepareOptions(size=512))) == [Reason.SMALL]
    assert reasons(planned(sits(400), seconds=6, options=PrepareOptions(size=512, min_face=140))) == [None]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-60, 60), min_size=5, max_size=120), st.integers(1, 6))
def test_a_square_holds_its_face_and_no_time_is_given_twice(steps: list[int], longest: int) -> None:
    places = [640.0]
    for step in steps:
        places.append(min(max(places[-1] + step, 200), 1080))
    options = PrepareOptions(min_seconds=0.5, max_seconds=longest)

    def wanders(time: float) -> Place:
        return places[round(time / INTERVAL)], 360, 150

    seconds = len(places) * INTERVAL
    found = planned(wanders, seconds=seconds, options=options)
    assert all(0 <= one.start < one.end <= seconds + 1e-9 for one in found)
    assert all(before.end <= after.start + 1e-9 for before, after in pairwise(found))
    assert all(0.5 <= one.seconds <= longest + 1e-5 for one in found if one.reason is None)
