import torch
from torch import Tensor

from cbtalk.render.best_frame import best_frame


def face(mouth: float) -> Tensor:
    """(5, 2): two eyes, a nose and the corners of a mouth that is more or less wide."""
    return torch.tensor([[-0.4, -0.3], [0.4, -0.3], [0.0, 0.0], [-mouth, 0.4], [mouth, 0.4]])


def test_the_most_alike_shape_wins_wherever_and_however_large_it_is() -> None:
    driving = torch.stack([face(0.1), face(0.2), 3.0 * face(0.31) + 5.0, face(0.6), face(0.3) * 0.1 - 1.0])
    assert best_frame(face(0.3), driving) == 4
    assert best_frame(face(0.33), driving) == 2


def test_the_earliest_of_equals_wins() -> None:
    assert best_frame(face(0.3), torch.stack([face(0.1), face(0.3), face(0.3)])) == 1


def test_keypoints_on_one_line_are_never_chosen_over_a_face() -> None:
    line = torch.linspace(-1, 1, 5)[:, None].expand(5, 2)
    assert best_frame(face(0.3), torch.stack([line, torch.zeros(5, 2), face(0.9)])) == 2
