"""Maps of mouth and eyes: drawn where the guided keypoints are, smooth, and finite whatever these do."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cbtalk.errors import ConfigError
from cbtalk.model import openings
from cbtalk.model.config import GUIDED_KEYPOINTS, TalkerConfig
from cbtalk.model.openings import OpeningModulation, changes_of, opening_maps
from cbtalk.pretrained import face_mesh
from cbtalk.train.face_points import MOUTH_CORNERS, POINTS

SIZE = 64


def face(mouth: float, eyes: float, *, count: int = GUIDED_KEYPOINTS) -> Tensor:
    """Keypoints (1, count, 2) of a face whose mouth and eyes are open by so much, 2 being the image's height."""
    points = torch.full((1, count, 2), 0.9)
    points[0, openings.MOUTH_CORNERS] = torch.tensor([[-0.25, 0.5], [0.25, 0.5]])
    points[0, openings.LIPS] = torch.tensor([[0.0, 0.5 - mouth / 2], [0.0, 0.5 + mouth / 2]])
    points[0, openings.PUPILS] = torch.tensor([[-0.3, -0.2], [0.3, -0.2]])
    for lids, sign in ((openings.UPPER_LIDS, -1), (openings.LOWER_LIDS, 1)):
        points[0, lids] = torch.tensor([[-0.3, -0.2], [0.3, -0.2]]) + torch.tensor([0.0, sign * eyes / 2])
    return points


def pixel(x: float, y: float) -> tuple[int, int]:
    """Row and column of the place (x, y) in [-1, 1]."""
    return round((y + 1) / 2 * (SIZE - 1)), round((x + 1) / 2 * (SIZE - 1))


def test_the_keypoints_are_those_that_training_guides() -> None:
    assert len(POINTS) == GUIDED_KEYPOINTS
    mesh = {"MOUTH_CORNERS": MOUTH_CORNERS} | {
        name: getattr(face_mesh, name) for name in ("UPPER_LIDS", "LOWER_LIDS", "PUPILS", "LIPS")
    }
    assert {name: POINTS[getattr(openings, name)] for name in mesh} == mesh


def test_a_map_lies_where_lips_or_lids_opened_or_closed() -> None:
    shut, wide = face(0.0, 0.0, count=20), face(0.3, 0.15, count=20)
    places = [(0.0, 0.5), (-0.3, -0.2), (0.3, -0.2)]
    for driving, source, opens in ((wide, shut, True), (shut, wide, False)):
        changes = changes_of(driving, source)
        maps = opening_maps(changes, SIZE)
        assert maps.shape == (1, openings.PARTS, SIZE, SIZE) and (changes.opened == opens).all()
        for number, place in enumerate(places):
            seen = maps[(0, slice(None), *pixel(*place))]
            assert seen[number] > 0.8 and seen.sum() - seen[number] < 0.01
            assert maps[0, number].amax() <= 1 and maps[0, number, 0].amax() < 1e-3


def test_nothing_is_shown_where_nothing_opens_or_closes() -> None:
    moved = face(0.2, 0.1) + torch.tensor([0.1, -0.05])
    assert opening_maps(changes_of(moved, face(0.2, 0.1)), SIZE).amax() < 1e-4


def test_nothing_is_painted_into_an_eye_that_the_source_shows_open() -> None:
    for before, shown in ((0.06, False), (0.0, True)):  # 0.06: a narrow eye, as some people have it
        maps = opening_maps(changes_of(face(0.1, 0.2), face(0.0, before)), SIZE)[0]
        assert (maps[1:].amax() > 0.8) == shown and (maps[1:].amax() == 0) != shown
        assert maps[0].amax() > 0.5  # the mouth opens all the same


@pytest.mark.parametrize("opens", [True, False])
def test_a_map_is_as_high_as_the_larger_opening_and_stronger_the_more_it_changed(opens: bool) -> None:
    small, maps = face(0.05, 0.0), []
    for opening in (0.1, 0.2, 0.4):
        faces = (face(opening, 0.0), small) if opens else (small, face(opening, 0.0))
        maps.append(opening_maps(changes_of(*faces), 256)[0, 0])
    for lower, higher in pairwise(maps):
        assert lower.amax() < higher.amax()
        rows, more = ((shown > shown.amax() / 2).any(dim=1).sum() for shown in (lower, higher))
        assert torch.allclose(more / rows, torch.tensor(2.0), rtol=0.15)


def test_a_face_upside_down_has_the_same_maps() -> None:
    now, before = face(0.3, 0.1), face(0.0, 0.2)
    turned = opening_maps(changes_of(-now, -before), SIZE)
    assert torch.allclose(turned.flip(2, 3), opening_maps(changes_of(now, before), SIZE), atol=1e-4)


def test_one_feature_is_changed_by_what_opened_and_by_what_closed_each_for_itself() -> None:
    change, x = OpeningModulation(2), torch.ones(2, 2, SIZE, SIZE)
    shut, wide = face(0.0, 0.0), face(0.3, 0.15)
    with torch.no_grad():
        change.opened[0, 2] = 1 / openings.GAIN  # the first channel is shifted by an opening mouth
        change.closed[1, 1] = -1 / openings.GAIN  # the second one is scaled by a closing left eye
        changes = changes_of(torch.cat([wide, shut]), torch.cat([shut, wide]))
        seen = change(x, opening_maps(changes, SIZE), changes.opened) - x
    mouth, eye = pixel(0.0, 0.5), pixel(-0.3, -0.2)
    assert seen[(0, 0, *mouth)] > 0.8 and seen[(1, 1, *eye)] < -0.8
    seen[(0, 0)], seen[(1, 1)] = 0, 0
    assert not seen.any()


class Indexed(TorchDispatchMode):
    """Counts the tensors that are indexed by numbers, which no CUDA graph can hold: they are copied to the device."""

    count = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += op is torch.ops.aten.index.Tensor
        return op(*args, **(kwargs or {}))


def test_no_index_is_copied_to_the_device() -> None:
    change, x = OpeningModulation(2), torch.ones(1, 2, SIZE, SIZE)
    with torch.no_grad(), Indexed() as indexed:
        changes = changes_of(face(0.3, 0.15), face(0.0, 0.0))
        change(x, opening_maps(changes, SIZE), changes.opened)
    assert indexed.count == 0


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 1e-6, 1.0, 30.0]))
def test_maps_and_their_gradients_are_finite_for_any_keypoints(seed: int, spread: float) -> None:
    points = torch.randn(2, 2, GUIDED_KEYPOINTS, 2, generator=torch.Generator().manual_seed(seed)) * spread
    points.requires_grad_()
    maps = opening_maps(changes_of(points[0], points[1]), 16)
    maps.sum().backward()
    assert points.grad is not None and points.grad.isfinite().all()
    assert ((maps >= 0) & (maps <= 1)).all()


def test_too_few_keypoints_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"opening_maps needs 16 keypoints or more; keypoints is 15"):
        TalkerConfig(opening_maps=True)
