import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cbtalk.errors import WeightsError
from cbtalk.pretrained.vgg import read_vgg
from cbtalk.train.perceptual import Windows, load_perceptual

VGG16 = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
STAGES = (0, 5, 10, 17, 24)


def narrow_vgg16() -> dict[str, Tensor]:
    """Weights laid out like VGG16's, but 4 channels wide."""
    generator = torch.Generator().manual_seed(0)
    entries = {}
    for index in VGG16:
        entries[f"{index}.weight"] = torch.randn(4, 4 if index else 3, 3, 3, generator=generator) / 4
        entries[f"{index}.bias"] = torch.zeros(4)
    return entries


def save(path: Path, entries: dict[str, Tensor]) -> None:
    arrays: dict[str, Any] = {name: value.numpy() for name, value in entries.items()}
    np.savez(path, **arrays)


def test_without_a_file_it_says_so_once_and_is_off(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert load_perceptual(None, (1,)) is None
    assert len(caplog.records) == 1 and "perceptual" in caplog.text


def test_npz_and_state_dict_give_the_same_loss(tmp_path: Path) -> None:
    entries = narrow_vgg16()
    save(tmp_path / "vgg.npz", entries)
    torch.save({f"features.{name}": value for name, value in entries.items()}, tmp_path / "vgg.pth")
    image, target = torch.rand(2, 1, 3, 32, 32)
    losses = []
    for name in ("vgg.npz", "vgg.pth"):
        loss = load_perceptual(tmp_path / name, (1, 2))
        assert loss is not None
        losses.append(loss(image, loss.features(target)))
    assert losses[0] > 0 and torch.equal(losses[0], losses[1])


def test_stages_are_the_first_layer_behind_each_pooling(tmp_path: Path) -> None:
    entries = narrow_vgg16()
    save(tmp_path / "vgg.npz", entries)
    loss = load_perceptual(tmp_path / "vgg.npz", (1,))
    assert loss is not None
    (features,) = loss.features(torch.rand(1, 3, 32, 32))
    assert [feature.shape[-1] for feature in features] == [32, 16, 8, 4, 2]
    used = [index for index in VGG16 if index <= STAGES[-1]]
    assert len(loss.vgg.convolutions) == len(used)
    for index, convolution in zip(used, loss.vgg.convolutions, strict=True):
        assert torch.equal(convolution.get_parameter("weight"), entries[f"{index}.weight"])


def test_gradient_reaches_the_image_and_not_the_network(tmp_path: Path) -> None:
    save(tmp_path / "vgg.npz", narrow_vgg16())
    loss = load_perceptual(tmp_path / "vgg.npz", (1, 2))
    assert loss is not None
    image = torch.rand(1, 3, 32, 32, requires_grad=True)
    loss(image, loss.features(torch.rand(1, 3, 32, 32))).backward()
    assert image.grad is not None and image.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in loss.parameters())


def test_windows_show_parts_of_large_levels_and_all_of_small_ones(tmp_path: Path) -> None:
    save(tmp_path / "vgg.npz", narrow_vgg16())
    whole, windowed = (load_perceptual(tmp_path / "vgg.npz", (1, 2), window) for window in (None, 32))
    assert whole is not None and windowed is not None
    image = torch.rand(1, 3, 64, 64)
    windows = Windows(torch.tensor([[0.99, 0.5]]), torch.empty(0, 1, 2))
    seen = windowed.features(image, windows)
    torch.testing.assert_close(seen[0], whole.features(image[:, :, 16:48, 32:])[0])
    torch.testing.assert_close(seen[1], whole.features(image)[1])
    changed = image.clone()
    changed[:, :, :16] = 0
    assert torch.equal(windowed.features(changed, windows)[0][0], seen[0][0])


def test_windows_lie_around_their_points_and_within_the_image() -> None:
    images = torch.rand(2, 3, 64, 64)
    centres = torch.tensor([[[0.0, 0.25], [0.98, -0.98]], [[torch.nan, torch.nan], [0.5, 0.0]]])
    windows = Windows(torch.tensor([[0.0, 0.5], [0.5, 0.99]]), centres)
    cut = windows.cut(images, 16)
    corners = [(0, 24), (24, 48), (24, 32), (48, 0), (0, 24), (40, 24)]  # left and top; without a point, anywhere
    for row, (left, top) in enumerate(corners):
        assert torch.equal(cut[row], images[row % 2, :, top : top + 16, left : left + 16]), row


def test_files_that_are_no_vgg(tmp_path: Path) -> None:
    save(tmp_path / "other.npz", {"0.weight": torch.zeros(4, 3, 3, 3), "0.bias": torch.zeros(4)})
    (tmp_path / "text.pth").write_text("not a checkpoint")
    for name, said in (
        ("other.npz", "not the features"),
        ("text.pth", "cannot be read"),
        ("absent.npz", "no such file"),
    ):
        with pytest.raises(WeightsError, match=said):
            read_vgg(tmp_path / name)
