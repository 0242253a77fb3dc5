import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.metrics_of_images import alexnet_like, vgg_like
from cbtalk.errors import WeightsError
from cbtalk.pretrained.lpips import Lpips, find_lpips

NETWORKS = {"alex": alexnet_like, "vgg": vgg_like}


@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_the_published_formula(network: str) -> None:
    layers, taps = NETWORKS[network]()
    heads = [torch.rand(width) for width in (4, 5, 6, 7, 8)]
    images = torch.rand(2, 2, 3, 65, 80) * 2.4 - 1.2  # beyond the range as well

    def features(x: Tensor) -> list[Tensor]:
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        x = (x.clamp(-1, 1) - shift[:, None, None]) / scale[:, None, None]
        found = []
        for index, layer in enumerate(layers):
            x = layer(x)
            if index in taps:
                found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    with torch.no_grad():
        distances = [
            ((a - b).square() * head[:, None, None]).sum(1).mean((1, 2))
            for a, b, head in zip(features(images[0]), features(images[1]), heads, strict=True)
        ]
        lpips = Lpips(network, dict(layers.state_dict()), heads)
        assert torch.allclose(lpips(images[0], images[1]), sum(distances, torch.zeros(2)), rtol=1e-5)
        assert lpips(images[0], images[0]).abs().max() == 0


@pytest.mark.parametrize(("network", "expected"), [("alex", 0.91945481), ("vgg", 0.67371953)])
def test_the_lpips_package_says_the_same(shared: Path, network: str, expected: float) -> None:
    """Expected: lpips 0.1.4 with the same files."""
    ramp = np.linspace(0, 255, 64 * 72 * 3).reshape(1, 64, 72, 3)
    noisy = ramp + np.random.default_rng(5).integers(-60, 60, ramp.shape)
    a, b = (torch.tensor(x.round().clip(0, 255)).permute(0, 3, 1, 2).float() / 127.5 - 1 for x in (ramp, noisy))
    assert find_lpips(shared / "data" / "models", network)(a, b).item() == pytest.approx(expected, abs=2e-6)


def write_models(folder: Path) -> None:
    entries = {name: value.half().numpy() for name, value in alexnet_like()[0].state_dict().items()}
    np.savez(folder / "alexnet.npz", **entries)  # type: ignore[arg-type]
    heads = {f"lin{n}.model.1.weight": torch.rand(1, width, 1, 1) for n, width in enumerate((4, 5, 6, 7, 8))}
    torch.save(heads, folder / "lpips_v0.1_lin_alex.pth")


def test_torchvisions_own_file_is_read(tmp_path: Path) -> None:
    write_models(tmp_path)
    images = torch.rand(2, 1, 3, 40, 40)
    expected = find_lpips(tmp_path, "alex")(*images)
    with np.load(tmp_path / "alexnet.npz") as archive:
        whole = {f"features.{name}": torch.from_numpy(archive[name]).float() for name in archive.files}
    (tmp_path / "alexnet.npz").unlink()
    torch.save({**whole, "classifier.1.weight": torch.zeros(3, 3)}, tmp_path / "alexnet-owt.pth")
    assert torch.equal(find_lpips(tmp_path, "alex")(*images), expected)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    write_models(tmp_path)
    with pytest.raises(FileNotFoundError, match="vgg16"):
        find_lpips(tmp_path, "vgg")
    with pytest.raises(FileNotFoundError, match="--models"):
        find_lpips(None, "alex")
    with pytest.raises(WeightsError, match="not a folder"):
        find_lpips(tmp_path / "absent", "alex")


class Malice:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("a pickle was run",)


@pytest.mark.parametrize("damage", ["empty", "malicious", "other heads", "other features"])
def test_files_that_cannot_be_used(tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_models(tmp_path)
    heads, features = tmp_path / "lpips_v0.1_lin_alex.pth", tmp_path / "alexnet.npz"
    if damage == "empty":
        features.write_bytes(b"")
    elif damage == "malicious":
        heads.write_bytes(pickle.dumps({"lin0.model.1.weight": Malice()}, protocol=2))
    elif damage == "other heads":
        torch.save({"linear": torch.zeros(3)}, heads)
    else:
        np.savez(features, **{"0.weight": np.zeros((9, 3, 11, 11)), "0.bias": np.zeros(9)})  # type: ignore[arg-type]
    name = features.name if damage in ("empty", "other features") else heads.name
    with pytest.raises(WeightsError, match=name):
        find_lpips(tmp_path, "alex")
    assert "a pickle was run" not in capsys.readouterr().out
