import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from cbtalk.errors import WeightsError
from cbtalk.evaluate.extractors import find_extractors
from cbtalk.media.images import read_image
from cbtalk.pretrained.attention_mesh import crop_features, crop_matrix, move_landmarks
from cbtalk.pretrained.dlib_faces import DlibIdentity, DlibLandmarks
from cbtalk.pretrained.face_mesh import FaceMesh, MeshPose

NAMES = [
    "mediapipe_mesh",
    "dlib_5",
    "dlib_68",
    "landmarks",
    "dlib_resnet",
    "arcface",
    "openface",
    "head_pose",
    "expression",
]
BLACK = np.zeros((256, 256, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def portrait(shared: Path) -> NDArray[np.uint8]:
    return read_image(shared / "data" / "portraits_val" / "astronaut_256.png")


def moved(image: NDArray[np.uint8], x: int, y: int) -> NDArray[np.uint8]:
    """The image moved to the right and down, its edge repeated."""
    return np.pad(image, ((y, 0), (x, 0), (0, 0)), mode="edge")[: image.shape[0], : image.shape[1]]


def test_each_absent_extractor_has_its_reason(tmp_path: Path) -> None:
    found = find_extractors(None)
    assert not found.landmarks and not found.identity
    assert list(found.absent) == NAMES and all("--models" in reason for reason in found.absent.values())
    assert "shape_predictor_68" in find_extractors(tmp_path).absent["dlib_68"]


def test_a_package_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("dlib", "ai_edge_litert"):
        monkeypatch.setitem(sys.modules, package, None)
    for name in ("face_landmark_with_attention.tflite", "shape_predictor_5_face_landmarks.dat"):
        (tmp_path / name).touch()
    absent = find_extractors(tmp_path).absent
    assert "ai_edge_litert" in absent["mediapipe_mesh"] and "cbtalk[evaluate]" in absent["mediapipe_mesh"]
    assert "dlib is not installed" in absent["dlib_5"]


def test_dlib_landmarks_follow_the_face(shared: Path, portrait: NDArray[np.uint8]) -> None:
    pytest.importorskip("dlib", reason="dlib-bin is not installed")
    extractor = DlibLandmarks(shared / "data" / "models" / "shape_predictor_5_face_landmarks.dat", points=5)
    before, after = extractor.landmarks(portrait), extractor.landmarks(moved(portrait, 16, 8))
    assert before is not None and after is not None and before.shape == (5, 2)
    assert np.abs(after - before - (16, 8)).mean() < 2
    assert extractor.landmarks(BLACK) is None


def test_dlib_identity_tells_people_apart(shared: Path, portrait: NDArray[np.uint8]) -> None:
    pytest.importorskip("dlib", reason="dlib-bin is not installed")
    models = shared / "data" / "models"
    extractor = DlibIdentity(
        models / "dlib_face_recognition_resnet_model_v1.dat", models / "shape_predictor_5_face_landmarks.dat"
    )
    one = extractor.identity(portrait)
    same = extractor.identity(moved(portrait[:, ::-1].copy(), 16, 8))
    other = extractor.identity(read_image(shared / "data" / "portraits_val" / "joe_biden_256.png"))
    assert one is not None and same is not None and other is not None and one.shape == (128,)
    assert np.linalg.norm(one - same) < 0.6 < np.linalg.norm(one - other)
    assert extractor.identity(BLACK) is None


def test_a_damaged_predictor(tmp_path: Path) -> None:
    pytest.importorskip("dlib", reason="dlib-bin is not installed")
    (tmp_path / "shape_predictor_5_face_landmarks.dat").write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match="shape_predictor_5_face_landmarks"):
        find_extractors(tmp_path)


def test_mesh_finds_what_mediapipe_finds(shared: Path, portrait: NDArray[np.uint8]) -> None:
    """Expected: mediapipe 0.10.21 (FaceMesh, refine_landmarks) on the same image, in pixels."""
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
    mesh = FaceMesh(shared / "data" / "models" / "face_landmark_with_attention.tflite")
    points = mesh.landmarks(portrait)
    assert points is not None and points.shape == (700, 2)
    irises, nose_and_chin = points[[690, 695]], points[[1, 152]]
    lips = points[mesh.regions["mouth"]]
    assert np.abs(irises - [[99.2, 109.7], [157.2, 112.7]]).max() < 1
    assert np.abs(nose_and_chin - [[125.4, 148.2], [123.9, 212.4]]).max() < 2.5
    assert np.abs([lips[:, 0].min() - 97.3, lips[:, 0].max() - 155.4]).max() < 1.5  # corners of the mouth
    assert mesh.landmarks(BLACK) is None


def test_the_heads_angles_turn_with_the_image_and_mirror_with_it(shared: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
    pose = MeshPose(FaceMesh(shared / "data" / "models" / "face_landmark_with_attention.tflite"))
    image = read_image(shared / "data" / "portraits_val" / "uf_woman1_256.png")
    turned = np.array(Image.fromarray(image).rotate(-10, Image.Resampling.BILINEAR))  # clockwise
    seen, mirrored, rolled = (pose.vector(each) for each in (image, np.ascontiguousarray(image[:, ::-1]), turned))
    assert seen is not None and mirrored is not None and rolled is not None
    assert np.abs(mirrored - seen * (1, -1, -1)).max() < 1.5  # yaw and roll change sides, pitch stays
    assert rolled[2] - seen[2] == pytest.approx(10, abs=1.5)
    assert pose.vector(BLACK) is None


def test_another_file_is_no_mesh(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
    (tmp_path / "face_landmark_with_attention.tflite").write_bytes(bytes(range(256)) * 4)
    with pytest.raises(WeightsError, match=r"face_landmark_with_attention\.tflite"):
        find_extractors(tmp_path)


@given(st.integers(0, 2**32 - 1), st.floats(-1.5, 1.5), st.floats(0.5, 3))
def test_a_crop_surrounds_its_points_upright(seed: int, tilt: float, scale: float) -> None:
    """The crop's axes follow the two points it is turned by, and its points fill 1 / scale of it."""
    rng = np.random.default_rng(seed)
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    upright = rng.uniform(0, 10, (6, 2))
    upright[1] = upright[0] + (3, 0)  # a horizontal line
    landmarks = np.column_stack([upright @ turn.T + 5, np.zeros(6)]).astype(np.float32)
    matrix = crop_matrix(
        landmarks,
        left_rotation_idx=0,
        right_rotation_idx=1,
        target_rotation_radians=0.0,
        subset_idxs=[0, 1, 2, 3, 4, 5],
        scale_x=scale,
        scale_y=scale,
        output_width=16,
        output_height=12,
    )
    inverse = np.linalg.inv(matrix.astype(np.float64)).astype(np.float32)
    inside = move_landmarks(landmarks[:, :2], inverse)
    expected = (upright - (upright.min(0) + upright.max(0)) / 2) / np.ptp(upright, axis=0) / scale + 0.5
    assert np.allclose(inside, expected * (16, 12), atol=1e-2)


@given(st.integers(0, 2**32 - 1))
def test_crops_of_features_are_grid_sample_inside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(9, 11, 2)).astype(np.float32)
    matrix = np.eye(4, dtype=np.float32)
    matrix[:2, :2] += rng.normal(size=(2, 2)) * 0.3
    matrix[:2, 3] = rng.uniform(-2, 6, 2)
    crop = crop_features(features, matrix, output_width=5, output_height=4)
    rows, columns = np.mgrid[:4, :5]
    pixels = np.stack([columns, rows], axis=-1) + 0.5
    places = pixels @ matrix[:2, :2].T + matrix[:2, 3]  # in pixels, whose centres are at halves
    grid = torch.from_numpy((2 * places / (11, 9) - 1).astype(np.float32))[None]
    sampled = F.grid_sample(torch.from_numpy(features).permute(2, 0, 1)[None], grid, align_corners=False)[0]
    inside = ((places >= 0.5) & (places <= (10.5, 8.5))).all(axis=-1, keepdims=True)
    expected = np.where(inside, sampled.permute(1, 2, 0).numpy(), 0)
    assert np.allclose(crop, expected, atol=1e-4)
