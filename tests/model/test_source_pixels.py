"""The warped source's own pixels in the image."""

import torch

from cbtalk.model.dense_motion import DenseMotion
from cbtalk.model.source_pixels import SourcePixels
from tests.helpers.talkers import MakeTalker
from tests.model.test_talker import images


def test_half_of_the_image_is_the_source_until_the_mask_is_trained() -> None:
    part, feature = SourcePixels(8), torch.randn(2, 8, 16, 16)
    image, warped = torch.randn(2, 2, 3, 16, 16).unbind(0)
    assert torch.allclose(part(feature, image, warped, None), (image + warped) / 2, atol=1e-5)


def test_the_mask_chooses_pixel_by_pixel() -> None:
    part, feature = SourcePixels(8), torch.zeros(1, 8, 16, 16)
    feature[:, 0, :, :8] = 1
    with torch.no_grad():
        part.mask.weight[0, 0, 1, 1] = 100
        part.mask.get_parameter("bias").fill_(-50)
    mixed = part(feature, torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16), None)
    assert torch.equal(mixed[..., :8].round(), torch.ones(1, 3, 16, 8)) and mixed[..., 8:].abs().max() < 1e-6


def test_nothing_of_the_source_is_taken_where_a_part_changed() -> None:
    image, warped = torch.randn(2, 2, 3, 16, 16).unbind(0)
    changed = torch.zeros(2, 3, 16, 16)
    changed[:, 1, :, :8] = 1
    mixed = SourcePixels(8)(torch.randn(2, 8, 16, 16), image, warped, changed)
    assert torch.equal(mixed[..., :8], image[..., :8])
    assert torch.allclose(mixed[..., 8:], (image + warped)[..., 8:] / 2, atol=1e-5)


def test_the_source_itself_comes_back_where_nothing_moves_and_the_mask_is_open(tiny: MakeTalker) -> None:
    talker, source = tiny(source_pixels=True, motion_compensation=False), images(1)
    with torch.no_grad():
        talker.net_g.source_pixels.mask.get_parameter("bias").fill_(1000)
        state = talker.encode_source(source)
        moved = talker.motion_estimator.dense_motion_network(state.small, state.keypoints, state.keypoints)
        still = torch.nn.functional.affine_grid(torch.eye(2, 3)[None], list(moved.occlusion.shape), align_corners=True)
        found = talker.net_g(state.features, DenseMotion(still, *moved[1:]))
    assert found.warped is not None and torch.allclose(found.warped, source, atol=1e-4)
    assert torch.allclose(found.image, source, atol=1e-4)
