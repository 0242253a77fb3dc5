import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cbtalk.cli import main
from cbtalk.figures.features import principal_colours
from cbtalk.figures.flow_colours import colour_wheel, flow_colours
from cbtalk.figures.stages import Stage, attention_weights, stages
from cbtalk.figures.usage import Usage, usage
from cbtalk.model.checkpoint import save_weights
from cbtalk.model.keypoints import Keypoints
from cbtalk.model.talker import Talker
from cbtalk.model.transformer import CrossAttention
from tests.helpers.talkers import tiny_talker
from tests.helpers.videos import write_clip

PAGES = ["attention", "codes", "comparison", "compensation", "usage"]


def inner(made: Talker) -> list[Stage]:
    generator = torch.Generator().manual_seed(0)
    source = torch.rand(1, 3, made.image_size, made.image_size, generator=generator) * 2 - 1
    with torch.inference_mode():
        state = made.encode_source(source)
        return stages(made, state, Keypoints(state.keypoints.value + 0.1, state.keypoints.jacobian))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A portrait, a driving clip and two weights files."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (80, 80, 3), dtype=np.uint8)).save(tmp_path / "portrait.png")
    write_clip(tmp_path / "clip.mp4", [rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(5)])
    for name, changes in (("one", {}), ("other", {"motion_compensation": False, "appearance_scales": 0})):
        save_weights(tmp_path / f"{name}.safetensors", tiny_talker(**changes))
    return {path.stem: str(path) for path in tmp_path.iterdir()}


def command(files: dict[str, str], output: Path, *more: str) -> list[str]:
    where = ["-s", files["portrait"], "-d", files["clip"], "-o", str(output)]
    return ["figures", *where, "--crop", "centre", "--driving-crop", "centre", "--count", "3", *more]


def test_the_command_draws_every_page(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(files, tmp_path / "out", "--weights", files["one"], files["other"], "--peers", files["clip"])
    assert main(words) == 0
    assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == PAGES
    for path in (tmp_path / "out").iterdir():
        with Image.open(path) as page:
            assert min(page.size) > 200 and np.asarray(page.convert("L")).std() > 10, path
    assert "motion codes at 16 px: perplexity" in capsys.readouterr().out


def test_a_model_without_codes_has_no_page_of_codes(files: dict[str, str], tmp_path: Path) -> None:
    assert main(command(files, tmp_path / "out", "--weights", files["other"], "--absolute")) == 0
    assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == ["attention", "comparison", "compensation"]


@pytest.mark.parametrize(
    ("option", "named"),
    [
        (("--moment", "2"), "moment"),
        (("--place", "64,0"), "place"),
        (("--place", "x"), "--place"),
        (("--count", "0"), "count"),
    ],
    ids=str,
)
def test_a_wrong_number_is_one_line(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], option: tuple[str, ...], named: str
) -> None:
    assert main([*command(files, tmp_path / "out", "--weights", files["one"]), *option]) == 2
    assert named in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_without_matplotlib_one_line_says_so(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in list(sys.modules) if name.startswith(("matplotlib", "cbtalk.figures"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    assert main(command(files, tmp_path / "out")) == 2
    assert "cbtalk[figures]" in capsys.readouterr().err


def test_stages_are_those_of_the_model() -> None:
    """The last stage hands on the features that the model's own pass ends with."""
    made = tiny_talker()
    seen = inner(made)
    assert [stage.scale for stage in seen] == list(made.config.scales)
    generator = torch.Generator().manual_seed(0)
    source = torch.rand(1, 3, made.image_size, made.image_size, generator=generator) * 2 - 1
    with torch.inference_mode():
        state = made.encode_source(source)
        keypoints = Keypoints(state.keypoints.value + 0.1, state.keypoints.jacobian)
        motion = made.motion_estimator.dense_motion_network(state.small, state.keypoints, keypoints)
        steps = made.net_g(state.features, motion).motion
    for stage, step in zip(seen, steps, strict=True):
        torch.testing.assert_close(stage.occlusion, step.occlusion[0, 0])
        torch.testing.assert_close(stage.flow_before, step.pixel_flow[0])
    for before, after in pairwise(seen):
        torch.testing.assert_close(before.flow, after.flow_before)


def test_attention_is_that_of_the_op() -> None:
    generator = torch.Generator().manual_seed(0)
    layer = CrossAttention(16, 4).double()
    tokens, codebook = (torch.randn(*shape, 16, generator=generator).double() for shape in ((2, 9), (5,)))
    position = torch.randn(9, 16, generator=generator).double()
    with torch.no_grad():
        layer.in_proj_weight.copy_(torch.randn(48, 16, generator=generator))
        codes = layer.project(codebook)
        found = attention_weights(layer, tokens, position, codes)
        query = (tokens + position) @ layer.in_proj_weight[:16].T + layer.in_proj_bias[:16]
        expected = torch.stack(
            [
                (query[..., part] @ codes.key[:, part].T / 2).softmax(dim=-1)
                for part in (slice(first, first + 4) for first in range(0, 16, 4))
            ]
        ).mean(dim=0)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("allocation", ["shared", "disjoint", "unsplit"])
def test_attention_stays_within_the_codes_of_its_scale(allocation: str) -> None:
    made = tiny_talker(code_allocation=allocation)
    for index, stage in enumerate(inner(made)):
        assert stage.motion_attention is not None and stage.appearance_attention is not None
        for attention, book in (
            (stage.motion_attention, made.net_g.quantize_motion),
            (stage.appearance_attention, made.net_g.quantize_app),
        ):
            torch.testing.assert_close(attention.sum(dim=1), torch.ones(len(attention)))
            outside = torch.ones(attention.shape[1], dtype=torch.bool)
            outside[book.rows(index)] = False
            assert not attention[:, outside].any()


def test_usage_counts_shares_over_places_and_frames() -> None:
    first, second = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0]]), torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 1, 0]])
    nothing = torch.zeros(1)
    frames = [[Stage(16, nothing, nothing, nothing, nothing, nothing, one, None)] for one in (first, second)]
    [use] = usage(frames)["motion"]
    assert list(usage(frames)) == ["motion"]
    torch.testing.assert_close(use.shares, torch.tensor([0.375, 0.375, 0.25, 0.0]))
    even = Usage(16, torch.full((8,), 1 / 8), 8)
    assert even.perplexity == pytest.approx(8) and even.favourites == 0


def test_flow_colours_follow_direction_and_length() -> None:
    flow = np.array([[[0.0, 2.0, 4.0, -2.0]], [[0.0, 0.0, 0.0, 0.0]]])
    [colours] = flow_colours(flow, 2.0)
    assert colours[0] == pytest.approx([1, 1, 1]) and colours[1] == pytest.approx([1, 0, 0])  # right is red
    assert colours[2] == pytest.approx(colours[1]) and colours[3] == pytest.approx([0, 1, 1])
    wheel = colour_wheel(33)
    assert wheel[16, 32, :3] == pytest.approx([1, 0, 0]) and wheel[0, 0, 3] == 0


def test_principal_colours_are_shared_and_bounded() -> None:
    rng = np.random.default_rng(0)
    feature = rng.normal(size=(6, 4, 4))
    one, same, other = principal_colours([feature, feature, rng.normal(size=(6, 4, 4))])
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    assert one.shape == (4, 4, 3) and one.min() >= 0 and one.max() <= 1
