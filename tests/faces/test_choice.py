"""The choice among several faces, and the error for one that there is not."""

import pytest
import torch

from cbtalk.errors import InputError
from cbtalk.faces import Face, choose, fixed_square, parse_choice, tracks_of


def face(x: float, y: float = 50.0, size: float = 20.0) -> Face:
    """A face whose box has its centre at (x, y)."""
    box = torch.tensor([x - size / 2, y - size / 2, x + size / 2, y + size / 2])
    return Face(box, 0.9, torch.full((5, 2), 0.0))


@pytest.mark.parametrize(
    ("text", "choice"), [("largest", "largest"), ("2", 2), ("10,20", (10.0, 20.0)), (" 7 , 0", (7.0, 0.0))]
)
def test_a_choice_is_read(text: str, choice: object) -> None:
    assert parse_choice(text) == choice


@pytest.mark.parametrize("text", ["", "0", "-1", "smallest", "1,2,3", "1.5", "x,y", "99999"])
def test_anything_else_is_refused_with_what_it_may_be(text: str) -> None:
    with pytest.raises(InputError, match="must be largest, a number from 1 on"):
        parse_choice(text)


def test_faces_are_chosen_by_size_number_and_place() -> None:
    faces = [face(100.0, size=30.0), face(20.0), face(60.0)]
    assert choose(faces, "largest") is faces[0]
    assert [choose(faces, number) for number in (1, 2, 3)] == [faces[1], faces[2], faces[0]]
    assert choose(faces, (55.0, 40.0)) is faces[2]
    with pytest.raises(InputError, match="face 4: only 3 faces are found in the image"):
        choose(faces, 4)


def test_tracks_follow_people_who_move_through_each_others_absence() -> None:
    left, right = [face(20.0 + i) for i in range(10)], [face(120.0 - i) for i in range(10)]
    frames = [[a, b] if i % 3 else [b] for i, (a, b) in enumerate(zip(left, right, strict=True))]
    tracks = sorted(tracks_of([*frames, []]), key=len)
    assert [len(track) for track in tracks] == [6, 10]
    assert all(a is b for a, b in zip(tracks[1], right, strict=True))


def test_the_square_of_a_track_is_not_moved_by_a_few_wrong_finds() -> None:
    steady = [face(50.0, size=40.0) for _ in range(9)]
    alone = fixed_square(steady)
    assert fixed_square([*steady, face(58.0, size=70.0), face(43.0, size=10.0)]) == alone
    assert alone.angle == 0
