"""The face detector: its network against figures of the published model, and the faces that it finds."""

import pytest
import torch
from torch import Tensor

from cbtalk.faces import find_faces
from cbtalk.faces.yunet import yunet
from tests.helpers.photos import data

FACE = (224, 118)  # the tip of the astronaut's nose, about


def portrait() -> Tensor:
    return torch.from_numpy(data.astronaut().copy()).permute(2, 0, 1)


def pasted(size: int, left: int, top: int, width: int = 960, height: int = 540) -> Tensor:
    """A photograph of coffee with the square of the astronaut's head in it."""
    photo = torch.from_numpy(data.coffee().copy()).permute(2, 0, 1)[None].float()
    photo = torch.nn.functional.interpolate(photo, (height, width), mode="bilinear")
    head = portrait()[None, :, 0:240, 100:340].float()
    head = torch.nn.functional.interpolate(head, (size, size), mode="bilinear", antialias=True)
    photo[..., top : top + size, left : left + size] = head
    return photo[0].byte()


@pytest.mark.parametrize(
    ("cell", "score", "box", "point"),
    [
        (35, 0.86363, (164.73069, 116.2361, 91.31429, 115.23156), (182.45193, 141.73139)),
        (230, 0.93591, (163.03583, 120.50559, 91.36153, 110.13245), (182.78067, 143.41021)),
        (1939, 0.01132, (313.82967, 284.27395, 11.3506, 23.6212), (316.45055, 289.64206)),
    ],
)
def test_the_network_gives_what_the_published_model_gives(
    cell: int, score: float, box: tuple[float, ...], point: tuple[float, float]
) -> None:
    found = yunet()(portrait()[None, :, 0:320, 60:380].float())
    assert found.scores[0, cell].item() == pytest.approx(score, abs=1e-5)
    left, top, right, bottom = found.boxes[0, cell].tolist()
    assert ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top) == pytest.approx(box, rel=1e-5)
    assert found.points[0, cell, 4].tolist() == pytest.approx(point, rel=1e-5)


def test_one_face_with_its_points_in_a_portrait() -> None:
    (face,) = find_faces(portrait())
    assert face.score > 0.8
    left, top, right, bottom = face.box.tolist()
    assert left < FACE[0] < right and top < FACE[1] < bottom
    eye_left, eye_right, nose, mouth_left, mouth_right = face.points.tolist()
    assert eye_left[0] < nose[0] < eye_right[0] and mouth_left[0] < mouth_right[0]
    assert max(eye_left[1], eye_right[1]) < nose[1] < min(mouth_left[1], mouth_right[1])


@pytest.mark.parametrize("size", [60, 100, 200, 500])
def test_the_box_follows_the_face_at_any_size_and_place(size: int) -> None:
    whole = find_faces(portrait()[:, 0:240, 100:340])[0].box / 240
    (face,) = find_faces(pasted(size, left=300, top=20))
    expected = whole * size + torch.tensor([300.0, 20.0]).repeat(2)
    assert (face.box - expected).abs().max() < 0.08 * size


def test_two_faces_are_two_and_an_image_without_one_has_none() -> None:
    both = pasted(200, left=50, top=100)
    both[:, 100:300, 600:800] = both[:, 100:300, 50:250]
    assert len(find_faces(both)) == 2
    assert find_faces(pasted(200, left=50, top=100)[:, :, 300:]) == []
    assert find_faces(torch.full((3, 16, 300), 127, dtype=torch.uint8)) == []
