import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cbtalk.train import augment as module
from cbtalk.train.augment import augment, compress, draw, move_points
from cbtalk.train.sections import AugmentConfig

STRONG = {
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.5,
    "hue": 0.1,
    "white_balance": 0.3,
    "scale": 0.3,
    "shift": 0.1,
    "rotation": 20.0,
    "blur": 2.0,
    "jpeg": 2.0,
}
OF_BOTH = [name for name in STRONG if name not in ("blur", "jpeg")]


def smooth(batch: int, size: int = 32) -> Tensor:
    """Pairs (2, batch, 3, size, size) with both frames alike."""
    coarse = torch.rand(batch, 3, 5, 5, generator=torch.Generator().manual_seed(1)) * 1.6 - 0.8
    image = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return torch.stack([image, image])


def draws(size: int, seed: int = 0) -> Tensor:
    return draw(size, torch.Generator().manual_seed(seed))


def changed(pair: Tensor, **strengths: float) -> Tensor:
    return augment(pair, AugmentConfig(**strengths), draws(pair.shape[1]))


@pytest.mark.parametrize("name", STRONG)
def test_every_change_changes_and_stays_in_range(name: str) -> None:
    pair = smooth(8)
    result = changed(pair, **{name: STRONG[name]})
    assert result.shape == pair.shape and result.abs().max() <= 1
    assert (result[0] - pair[0]).abs().mean() > 1e-3
    assert {field.name for field in dataclasses.fields(AugmentConfig)} == set(STRONG)


@pytest.mark.parametrize("name", OF_BOTH)
def test_colour_and_geometry_are_the_same_for_both_frames_and_not_for_all_pairs(name: str) -> None:
    pair = smooth(1).expand(-1, 8, -1, -1, -1)
    result = changed(pair, **{name: STRONG[name]})
    torch.testing.assert_close(result[0], result[1])
    assert (result[:, 0] - result[:, 1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["blur", "jpeg"])
def test_degradation_is_the_sources_alone_and_spares_some(name: str) -> None:
    pair = torch.rand(2, 32, 3, 16, 16) * 1.8 - 0.9
    result = changed(pair, **{name: STRONG[name]})
    assert torch.equal(result[1], pair[1])
    untouched = [torch.equal(one, other) for one, other in zip(result[0], pair[0], strict=True)]
    assert 0 < sum(untouched) < len(untouched)


@settings(deadline=None)
@given(seed=st.integers(0, 50), height=st.integers(9, 40), width=st.integers(9, 40))
def test_any_size_and_the_generator_alone_decides(seed: int, height: int, width: int) -> None:
    pair = torch.linspace(-1, 1, 2 * 2 * 3 * height * width).view(2, 2, 3, height, width)
    one, again = (augment(pair, AugmentConfig(**STRONG), draws(2, seed)) for _ in range(2))
    assert one.shape == pair.shape and bool(one.isfinite().all())
    assert torch.equal(one, again)


def test_gains_keep_black_and_saturation_keeps_grey() -> None:
    black = torch.full((2, 4, 3, 8, 8), -1.0)
    torch.testing.assert_close(changed(black, brightness=0.5, white_balance=0.5, saturation=0.5, hue=0.2), black)
    grey = torch.full((2, 4, 3, 8, 8), 0.3)
    torch.testing.assert_close(changed(grey, saturation=0.9, hue=0.4), grey, atol=2e-3, rtol=0)
    middle = torch.zeros(2, 4, 3, 8, 8)
    torch.testing.assert_close(changed(middle, contrast=0.9), middle)


def test_shift_moves_the_image_by_its_share() -> None:
    pair = torch.full((2, 64, 3, 40, 40), -1.0)
    pair[..., 18:22, 18:22] = 1.0
    columns = ((changed(pair, shift=0.25)[0, :, 0] + 1).sum(1) * torch.arange(40)).sum(1)
    centres = columns / (changed(pair, shift=0.25)[0, :, 0] + 1).sum((1, 2))
    distance = (centres - 19.5).abs()
    assert distance.max() < 10.5 and distance.max() > 8


def test_points_follow_the_image() -> None:
    """A bright dot stays under the point that marks it, whatever the shift, turn and size."""
    strengths = AugmentConfig(scale=0.3, shift=0.1, rotation=25.0)
    pair = torch.full((2, 16, 3, 64, 64), -1.0)
    pair[0, :, :, 24:26, 40:42], pair[1, :, :, 40:42, 20:22] = 1.0, 1.0
    points = torch.tensor([[[41.0, 25.0]], [[21.0, 41.0]]]).div(32).sub(1)  # centres of the dots, the edges being +-1
    points = points.unsqueeze(1).expand(-1, 16, -1, -1)
    moved = augment(pair, strengths, draws(16))[:, :, 0] + 1
    line = (torch.arange(64) + 0.5) / 32 - 1
    weight = moved.sum((2, 3))
    seen = torch.stack([(moved.sum(2) * line).sum(2) / weight, (moved.sum(3) * line).sum(2) / weight], dim=-1)
    where = move_points(points, strengths, draws(16)).squeeze(2)
    assert (where - points.squeeze(2)).abs().amax() > 0.2
    torch.testing.assert_close(where, seen, atol=0.02, rtol=0)


def test_compression_quantises_the_cosines_of_eight_by_eight_blocks() -> None:
    cosines = module._cosines()
    torch.testing.assert_close(cosines @ cosines.T, torch.eye(8), atol=1e-6, rtol=0)
    flat = torch.full((1, 3, 16, 16), 0.37)
    step = 16 / 127.5 / 8  # of the mean: the first entry of the table, over the transform's gain
    result = compress(flat, 1.0, torch.tensor([0.4999]))
    torch.testing.assert_close(result, flat, atol=step / 2 + 1e-2, rtol=0)
    assert result.flatten(1).std() < 1e-3  # no pattern where there is none
    noise = torch.rand(1, 3, 16, 16) * 2 - 1
    mild, strong = (compress(noise, strength, torch.tensor([0.4999])) for strength in (0.05, 2.0))
    assert (mild - noise).abs().mean() < 0.3 * (strong - noise).abs().mean()
