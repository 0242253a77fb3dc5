import numpy as np
import pytest
import torch

from cbtalk.errors import WeightsError
from cbtalk.model.images import to_frames, to_images
from cbtalk.model.keypoints import Keypoints
from cbtalk.model.talker import Talker
from cbtalk.render.engine import Engine, hold_last
from tests.helpers.talkers import tiny_talker


@pytest.fixture(scope="module")
def talker() -> Talker:
    return tiny_talker()


def images(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("relative", [True, False])
def test_the_engine_shows_what_the_model_animates(talker: Talker, relative: bool) -> None:
    source, driving = images(1)[0], images(3)
    engine = Engine(talker, source, relative=relative)
    batches = [engine.render(engine.detect(part)).images for part in (driving[:2], driving[2:])]
    with torch.inference_mode():
        state = talker.encode_source(to_images(torch.from_numpy(source[None])))
        frames = to_images(torch.from_numpy(driving))
        reference = talker.keypoints(frames[:1]) if relative else None
        expected = to_frames(talker.animate(state, frames, reference=reference))
    difference = np.concatenate(batches).astype(int) - expected.astype(int)
    assert np.abs(difference).max() <= 1  # another batch size rounds differently
    assert expected.std() > 1


def test_a_source_without_finite_keypoints_is_refused(talker: Talker) -> None:
    broken = tiny_talker()
    with torch.no_grad():
        broken.motion_estimator.kp_detector.kp.weight.fill_(torch.nan)
    with pytest.raises(WeightsError):
        Engine(broken, images(1)[0])


def test_images_survive_the_way_to_the_model_and_back() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    tensor = to_images(torch.from_numpy(images))
    assert (tensor.min().item(), tensor.max().item()) == (-1, 1)
    np.testing.assert_array_equal(to_frames(tensor), images)
    assert to_frames(torch.tensor([-3.0, 3.0, torch.nan]).view(1, 3, 1, 1)).flatten().tolist() == [0, 255, 128]


def test_hold_last_keeps_the_good_one_before() -> None:
    values = torch.tensor([torch.nan, 1.0, torch.inf, torch.nan, 4.0])
    keypoints = Keypoints(values.view(5, 1, 1).expand(5, 3, 2), torch.ones(5, 3, 2, 2))
    last = Keypoints(torch.full((1, 3, 2), 9.0), torch.ones(1, 3, 2, 2))
    held, replaced = hold_last(last, keypoints)
    assert held.value[:, 0, 0].tolist() == [9, 1, 1, 1, 4]
    assert replaced.tolist() == [True, False, True, True, False]
