import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cbtalk.errors import ConfigError
from cbtalk.media.images import read_image
from cbtalk.pretrained.face_mesh import LIPS, PUPILS, UPPER_LIDS, FaceMesh
from cbtalk.train import landmarks as module
from cbtalk.train import train_talker
from cbtalk.train.config import load_config
from cbtalk.train.data import pair_loader, read_clips
from cbtalk.train.face_points import EXPRESSIVE, MIRRORED, POINTS, expressive_places, openings_of
from cbtalk.train.landmarks import Landmarks, find_landmarks, guidance_loss
from cbtalk.train.losses import expression_l1
from cbtalk.train.pairs import Pair
from tests.helpers.training import MakeConfig

CPU = torch.device("cpu")


class FakeMesh:
    """Finds every point at the mean colour of a frame, and no face in a black one."""

    calls = 0

    def __init__(self, model: Path) -> None:
        pass

    def landmarks(self, frame: np.ndarray) -> np.ndarray | None:
        FakeMesh.calls += 1
        return np.full((700, 2), frame.mean(), dtype=np.float32) if frame.any() else None


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "FaceMesh", FakeMesh)
    path = tmp_path / "mesh.tflite"
    path.touch()
    return path


def test_points_are_found_once_and_a_frame_without_a_face_has_none(tmp_path: Path, model: Path) -> None:
    frames = np.stack([np.full((64, 64, 3), level, dtype=np.uint8) for level in (0, 16, 48)])
    file = tmp_path / "clip.npy"
    first = find_landmarks([file], [frames], model)[0]
    assert first.shape == (3, len(POINTS), 2) and np.isnan(first[0]).all()
    np.testing.assert_allclose(first[1:, 0, 0], [-0.5, 0.5])  # of 64 pixels, the edges being -1 and 1
    calls = FakeMesh.calls
    again = find_landmarks([file], [frames], model)[0]
    assert FakeMesh.calls == calls
    np.testing.assert_array_equal(again, first)


def test_a_mirrored_face_has_its_left_where_its_right_was() -> None:
    clip = np.random.default_rng(0).uniform(-1, 1, (3, len(POINTS), 2)).astype(np.float32)
    landmarks = Landmarks([clip, clip + 5], CPU)
    plain, mirrored = landmarks.read([Pair(0, 1, 2, False), Pair(0, 1, 2, True)]).unbind(1)
    np.testing.assert_array_equal(plain.numpy(), clip[[1, 2]])
    torch.testing.assert_close(mirrored[..., 0], -plain[:, list(MIRRORED), 0])
    torch.testing.assert_close(mirrored[..., 1], plain[:, list(MIRRORED), 1])
    assert [MIRRORED[index] for index in MIRRORED] == list(range(len(POINTS)))
    np.testing.assert_array_equal(landmarks.read([Pair(1, 2, 0, False)])[:, 0].numpy(), clip[[2, 0]] + 5)


def test_the_mesh_of_a_mirrored_portrait_is_the_mirrored_mesh(shared: Path) -> None:
    """The table of the points: each pair is left and right of one face, found by the network itself."""
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
    model = shared / "data" / "models" / "face_landmark_with_attention.tflite"
    image = read_image(shared / "data" / "portraits_val" / "astronaut_256.png")
    plain, mirrored = (
        module._points(FaceMesh(model), np.ascontiguousarray(frame)) for frame in (image, image[:, ::-1])
    )
    assert np.abs(mirrored[list(MIRRORED)] * (-1, 1) - plain).max() < 0.05
    assert np.abs(plain).max() < 1 and plain[0, 0] < plain[1, 0]  # left of the mouth, and right of it


def test_the_loss_counts_points_that_are_in_the_image() -> None:
    keypoints = torch.zeros(2, 20, 2, requires_grad=True)
    points = torch.full((2, len(POINTS), 2), torch.nan)
    points[0, 3] = torch.tensor([0.5, -0.25])
    points[1, 0] = torch.tensor([0.0, 1.5])  # outside
    loss = guidance_loss(keypoints, points)
    assert loss.item() == 0.75
    (gradient,) = torch.autograd.grad(loss, keypoints)
    assert gradient.isfinite().all() and gradient.abs().sum() == 2 and gradient[0, 3].tolist() == [-1, 1]
    assert guidance_loss(keypoints, torch.full_like(points, torch.nan)).item() == 0


def test_expression_counts_errors_near_mouth_and_eyes() -> None:
    points = torch.full((1, len(POINTS), 2), torch.nan)
    points[0, EXPRESSIVE[0]] = torch.tensor([0.5, -0.5])  # right and up
    driving = torch.zeros(1, 3, 64, 64)
    near, far = driving.clone(), driving.clone()
    near[:, :, 14:18, 46:50] = 1.0
    far[:, :, 46:50, 14:18] = 1.0
    mean = near.mean().item()
    assert expression_l1(near, driving, points).item() > 20 * mean
    assert expression_l1(far, driving, points).item() < 1e-3 * mean
    assert expression_l1(near, driving, torch.full_like(points, torch.nan)).item() == 0


def test_openings_are_those_of_lips_and_lids_in_distances_of_the_pupils() -> None:
    at = {point: index for index, point in enumerate(POINTS)}
    points = np.zeros((3, len(POINTS), 2), dtype=np.float32)
    points[:, at[PUPILS[1]], 0] = 0.5
    points[1, at[LIPS[1]], 1] = 0.25
    points[1, at[UPPER_LIDS[0]], 1] = -0.1  # of one eye
    points[2] = np.nan
    expected = np.array([[0, 0], [0.5, 0.1], [np.nan, np.nan]])
    np.testing.assert_allclose(openings_of(points), expected, atol=1e-6)


def test_the_middle_of_mouth_and_eyes(shared: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
    model = shared / "data" / "models" / "face_landmark_with_attention.tflite"
    image = read_image(shared / "data" / "portraits_val" / "astronaut_256.png")
    points = torch.from_numpy(module._points(FaceMesh(model), image))[None]
    mouth, *eyes = (place[0] for place in expressive_places(points))
    for eye, pupil in zip(eyes, PUPILS, strict=True):
        assert (eye - points[0, POINTS.index(pupil)]).abs().max() < 0.02
    lips = points[0, [POINTS.index(point) for point in LIPS]]
    assert (mouth - lips.mean(0)).abs().max() < 0.05


def test_batches_have_the_points_of_their_frames(make_config: MakeConfig, tmp_path: Path, model: Path) -> None:
    root = tmp_path / "faces"
    for clip, levels in (("ann__00", (32, 64)), ("bob__00", (96, 128))):
        (root / clip).mkdir(parents=True)
        for number, level in enumerate(levels):
            Image.new("RGB", (64, 64), (level,) * 3).save(root / clip / f"{number}.png")
    path = make_config(
        model={"keypoints": 16, "image_size": 64},
        data={"root": str(root), "cache": str(tmp_path / "decoded"), "horizontal_flip": 0.0},
        loss={"guidance": 1.0},
        guidance={"model": str(model)},
    )
    config = load_config(path)
    batch = pair_loader(read_clips(root, config), config, CPU).batch(0)
    assert batch.points is not None
    for frames, points in zip(batch[:2], batch.points, strict=True):
        place = (frames[:, 0, 0, 0] + 1) * 127.5  # where FakeMesh sees it, in pixels from the image's edge
        torch.testing.assert_close(points[:, 0, 0], (place - 0.5) * 2 / 63 - 1, atol=1e-4, rtol=1e-4)


def test_guidance_says_what_it_lacks(make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"guidance\.model"):
        load_config(make_config(loss={"guidance": 1.0}))
    with pytest.raises(ConfigError, match="16 or more"):
        load_config(make_config(model={"keypoints": 15}, loss={"guidance": 1.0}, guidance={"model": "mesh.tflite"}))
    with pytest.raises(ConfigError, match=r"nowhere\.tflite: no such file"):
        find_landmarks([], [], tmp_path / "nowhere.tflite")
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    (tmp_path / "mesh.tflite").touch()
    with pytest.raises(ConfigError, match="ai_edge_litert"):
        find_landmarks([], [], tmp_path / "mesh.tflite")


@pytest.mark.slow
def test_the_first_steps_train_the_detector_alone(make_config: MakeConfig, tmp_path: Path, model: Path) -> None:
    options = {
        "model": {"keypoints": 16},
        "loss": {"guidance": 1.0},
        "guidance": {"model": str(model), "steps": 2, "batches": 2},
    }

    def weights(name: str, *stops: int) -> dict[str, torch.Tensor]:
        for stop in stops:
            file = train_talker(make_config(name, **options), max_steps=stop)
        return load_file(file)

    start, alone, all_of_it = (weights(name, steps) for name, steps in (("a", 0), ("b", 2), ("c", 3)))
    changed = {name for name, value in alone.items() if not torch.equal(value, start[name])}
    assert changed and all(name.startswith("motion_estimator.kp_detector.") for name in changed)
    assert any(not torch.equal(value, alone[name]) for name, value in all_of_it.items() if name.startswith("net_g."))
    resumed = weights("d", 1, 2, 3)
    assert all(torch.equal(value, all_of_it[name]) for name, value in resumed.items())
    with pytest.raises(ConfigError, match=r"guidance\.steps"):
        load_config(make_config("e", guidance={"steps": 2}))
    with pytest.raises(ConfigError, match=r"guidance\.batches"):
        load_config(make_config("f", **options | {"guidance": {"model": str(model), "batches": 0}}))
