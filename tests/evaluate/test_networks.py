"""Networks by file, under the names of what they are for."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cbtalk.errors import WeightsError
from cbtalk.evaluate import protocol
from cbtalk.evaluate.extractors import find_extractors
from cbtalk.faces import Face
from cbtalk.metrics.lpips import find_lpips_metric
from cbtalk.pretrained.face_networks import (
    ARCFACE_POINTS,
    NetworkIdentity,
    NetworkLandmarks,
    NetworkPose,
    aligned,
    peaks,
)
from cbtalk.pretrained.networks import ROLES, find_network
from tests.evaluate.conftest import MakeClip

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")

POINTS = torch.tensor([[100.0, 110.0], [150.0, 105.0], [128.0, 135.0], [108.0, 165.0], [150.0, 160.0]])
FACE = Face(torch.tensor([80.0, 70.0, 180.0, 190.0]), 1.0, POINTS)


class MeanColour(nn.Module):
    """(B, 3): the mean of each channel, as the network is given it."""

    def forward(self, image: Tensor) -> Tensor:
        return image.mean(dim=(2, 3))


class Gap(nn.Module):
    """(B, 1, 1, 1): the mean difference of two images."""

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return (one - other).abs().mean(dim=(1, 2, 3), keepdim=True)


class Heat(nn.Module):
    """(B, 2, h, w): a heat map of the first channel, and one of the last."""

    def forward(self, image: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(image, 4)[:, ::2]


class Given(nn.Module):
    """(B, ...): always the same."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = nn.Buffer(values)

    def forward(self, image: Tensor) -> Tensor:
        return self.values.unsqueeze(0).repeat_interleave(image.shape[0], dim=0)


def write_torchscript(path: Path, network: nn.Module) -> None:
    torch.jit.script(network.eval()).save(str(path))


def write_onnx(path: Path) -> None:
    """MeanColour as ONNX."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["means"]),
    ]
    taken = helper.make_tensor_value_info("image", kind, ["B", 3, "H", "W"])
    given = helper.make_tensor_value_info("means", kind, ["B", 3])
    graph = helper.make_graph(nodes, "mean_colour", [taken], [given])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9), path)


def write(path: Path) -> None:
    if path.suffix == ".onnx":
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
        write_onnx(path)
    else:
        write_torchscript(path, MeanColour())


@pytest.mark.parametrize("suffix", [".onnx", ".pt", ".ts", ".torchscript"])
def test_an_image_as_the_network_takes_it(tmp_path: Path, suffix: str) -> None:
    """Red 1, green 0.5, blue 0 at any size: mean and deviation first, in the order of channels that is said."""
    write(tmp_path / f"openface{suffix}")
    (tmp_path / "models.toml").write_text("[openface]\nmean = [0.0, 0.25, 0.5]\nstd = 0.5\n")
    network = find_network(tmp_path, "openface", "cpu")
    image = torch.tensor([1.0, 0.5, 0.0])[None, :, None, None].expand(2, 3, 40, 40)
    assert network(image) == pytest.approx(np.array([[0.0, 0.5, 1.0]] * 2))  # BGR
    (tmp_path / "models.toml").write_text('[openface]\nchannels = "RGB"\n')
    assert find_network(tmp_path, "openface", "cpu")(image) == pytest.approx(np.array([[1.0, 0.5, 0.0]] * 2))


def test_a_file_of_another_name(tmp_path: Path) -> None:
    write(tmp_path / "glintr100.pt")
    with pytest.raises(FileNotFoundError, match=r"arcface\.onnx"):
        find_network(tmp_path, "arcface", "cpu")
    (tmp_path / "models.toml").write_text('[arcface]\nfile = "glintr100.pt"\nsame_person = 1.2\n')
    assert find_network(tmp_path, "arcface", "cpu").taken.same_person == 1.2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[arcface", "cannot be read as TOML"),
        ("[arkface]\nsize = 3", "arkface.* is none of lpips_alex"),
        ("[arcface]\nside = 3", "has no side"),
        ("[arcface]\nsize = -1", "size cannot be -1"),
        ("[arcface]\nsize = 0", "needs a size"),
        ("[arcface]\nmean = [1, 2]", "mean cannot be"),
        ("[arcface]\nstd = 0", "std cannot be"),
        ('[arcface]\nchannels = "GBR"', "channels cannot be"),
        ('[inception]\ncrop = "face"', "sees whole images"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "models.toml").write_text(text)
    with pytest.raises(WeightsError, match=rf"models\.toml.*{why}"):
        find_network(tmp_path, "arcface", "cpu")


@pytest.mark.parametrize("suffix", [".onnx", ".pt"])
def test_files_that_are_no_network(tmp_path: Path, suffix: str) -> None:
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    (tmp_path / f"inception{suffix}").write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match=rf"inception\{suffix}: cannot be read as"):
        find_network(tmp_path, "inception", "cpu")


@pytest.mark.parametrize(
    ("role", "network", "why"),
    [
        ("inception", Gap(), r"inception\.pt: cannot be used on images"),
        ("landmarks", MeanColour(), "not points"),
        ("head_pose", Given(torch.zeros(4)), "not angles"),
    ],
)
def test_a_network_of_another_kind_is_refused_at_once(tmp_path: Path, role: str, network: nn.Module, why: str) -> None:
    write_torchscript(tmp_path / f"{role}.pt", network)
    with pytest.raises(WeightsError, match=why):
        find_network(tmp_path, role, "cpu")
        find_extractors(tmp_path)


def test_without_onnxruntime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "arcface.onnx").touch()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "onnxruntime is not installed: pip install" in find_extractors(tmp_path).absent["arcface"]


def find_face(frame: NDArray[np.uint8]) -> Face:
    return FACE


def network(folder: Path, role: str, module: nn.Module, **settings: Any) -> Any:
    write_torchscript(folder / f"{role}.pt", module)
    lines = [f"{name} = {value!r}" for name, value in settings.items()]
    (folder / "models.toml").write_text("\n".join([f"[{role}]", *lines]))
    return find_network(folder, role, "cpu")


def test_points_of_heat_maps_lie_where_the_image_has_them(tmp_path: Path) -> None:
    frame = np.zeros((256, 256, 3), dtype=np.uint8)
    frame[110:115, 100:105, 0], frame[160:165, 150:155, 2] = 255, 255
    found = NetworkLandmarks(network(tmp_path, "landmarks", Heat()), find_face).landmarks(frame)  # type: ignore[arg-type]
    assert found is not None and np.abs(found - [[102.5, 112.5], [152.5, 162.5]]).max() < 2


def test_points_in_pixels_of_the_crop(tmp_path: Path) -> None:
    points = torch.tensor([[0.0, 0.0], [256.0, 256.0], [128.0, 64.0]])
    extractor = NetworkLandmarks(network(tmp_path, "landmarks", Given(points), margin=1.5), find_face)  # type: ignore[arg-type]
    found = extractor.landmarks(np.zeros((256, 256, 3), dtype=np.uint8))
    assert found == pytest.approx(np.array([[40, 40], [220, 220], [130, 85]]))  # 1.5 x 120 px around the box's middle


def test_peaks_are_found_between_cells() -> None:
    rows, columns = np.mgrid[:16, :12]
    maps = np.stack([np.exp(-((columns + 0.5 - x) ** 2) - (rows + 0.5 - y) ** 2) for x, y in ((3.7, 9.4), (0.3, 15.8))])
    assert np.abs(peaks(maps) * (12, 16) - [[3.7, 9.4], [0.3, 15.8]]).max() < 0.26


def test_a_face_is_laid_on_arcfaces_points() -> None:
    """A dot on each of the five points of a face is near its place in the aligned image."""
    for place, (x, y) in enumerate(POINTS.round().int().tolist()):
        frame = np.zeros((256, 256, 3), dtype=np.uint8)
        frame[y - 1 : y + 2, x - 1 : x + 2] = 255
        rows, columns = np.nonzero(aligned(frame, FACE, 112)[..., 0] > 60)
        assert abs(columns.mean() - ARCFACE_POINTS[place][0]) < 7 and abs(rows.mean() - ARCFACE_POINTS[place][1]) < 7
    exact = FACE._replace(points=torch.from_numpy(ARCFACE_POINTS + 0.5))
    image = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    assert np.abs(aligned(image, exact, 112).astype(int) - image).max() <= 1


def test_embeddings_and_angles(tmp_path: Path) -> None:
    frame = np.zeros((256, 256, 3), dtype=np.uint8)
    identity = NetworkIdentity("arcface", network(tmp_path, "arcface", Given(torch.arange(4.0))), find_face)  # type: ignore[arg-type]
    assert np.array_equal(identity.identity(frame), np.arange(4.0))  # type: ignore[arg-type]
    turn = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    for values, expected in ((torch.tensor([1.0, 2.0, 3.0]), [1, 2, 3]), (turn, [0, 0, 90])):
        pose = NetworkPose(network(tmp_path, "head_pose", Given(values)), find_face)  # type: ignore[arg-type]
        assert pose.vector(frame) == pytest.approx(np.array(expected))


def test_lpips_by_one_network_of_two_images(tmp_path: Path) -> None:
    write_torchscript(tmp_path / "lpips_vgg.pt", Gap())
    lpips = find_lpips_metric(tmp_path, "vgg", "cpu")
    one, others = torch.zeros(1, 3, 40, 40), torch.tensor([0.5, 2.0])[:, None, None, None].expand(2, 3, 40, 40)
    assert lpips.compare(lpips.features(one), lpips.features(others)).tolist() == pytest.approx([0.5, 1.0])  # clamped


def test_a_folder_of_networks_gives_all_figures(tmp_path: Path, make_clip: MakeClip, weights: str) -> None:
    """On images without a face: what needs one finds none, and the others have their figures."""
    models = tmp_path / "models"
    models.mkdir()
    modules: dict[str, nn.Module] = dict.fromkeys(ROLES, MeanColour())
    modules |= dict.fromkeys(("lpips_alex", "lpips_vgg"), Gap())
    modules |= {"landmarks": Given(torch.zeros(68, 2)), "head_pose": Given(torch.zeros(3))}
    for role, module in modules.items():
        write_torchscript(models / f"{role}.pt", module)
    report = protocol.evaluate_weights(weights, make_clip("clip", [50, 60, 70, 100]), models=models)
    result, repeat = report["mean"]["result"], report["mean"]["repeat"]
    assert {"lpips_alex", "lpips_vgg", "fid", "fid_source", "aed_openface", "identity_openface"} <= set(result)
    assert repeat["lpips_vgg"] == pytest.approx(2 * (10 + 20 + 50) / 3 / 255)
    assert repeat["aed_openface"] == pytest.approx(3 * np.mean(np.square([10, 20, 50])) / 255**2, rel=1e-5)
    assert report["clips"]["clip"]["no_face"]["real"] == {
        "landmarks": 3, "arcface": 3, "openface": 0, "head_pose": 3, "expression": 3,
    }  # fmt: skip
    assert report["fid"] == {"clips": {"images": 3, "numbers": 3}}
    assert set(report["absent"]) == {"mediapipe_mesh", "dlib_5", "dlib_68", "dlib_resnet"}
