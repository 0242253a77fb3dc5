from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cbtalk.errors import ConfigError, WeightsError
from cbtalk.model.checkpoint import save_weights
from cbtalk.model.talker import Talker
from cbtalk.train import train_talker
from cbtalk.train.initial import start_from
from cbtalk.train.state import checkpoints
from tests.helpers.talkers import TINY
from tests.helpers.training import MakeConfig


@pytest.fixture
def weights(tmp_path: Path) -> tuple[Talker, Path]:
    """A tiny talker of 64 x 64 with parameters of its own, and its file."""
    torch.manual_seed(5)
    talker = Talker(TINY)
    with torch.no_grad():
        for parameter in talker.parameters():
            parameter.normal_()
    save_weights(tmp_path / "given.safetensors", talker)
    return talker, tmp_path / "given.safetensors"


def test_the_same_sizes_take_everything(weights: tuple[Talker, Path]) -> None:
    talker, path = weights
    ours = Talker(TINY)
    count = len(talker.state_dict())
    assert f"{count} of {count} entries" in start_from(ours, path)
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in talker.state_dict().items())


def test_twice_the_size_takes_every_parameter_and_resizes_positions(weights: tuple[Talker, Path]) -> None:
    talker, path = weights
    ours = Talker(replace(TINY, image_size=128))
    start_from(ours, path)
    old, new = dict(talker.named_parameters()), dict(ours.named_parameters())
    for before, after in (("16", "32"), ("32", "64"), ("64", "128")):
        assert torch.equal(
            new[f"net_g.warped_source_enc_{after}.weight"], old[f"net_g.warped_source_enc_{before}.weight"]
        )
    table, resized = (x["net_g.position_emb_app"].unflatten(0, (s, s)) for x, s in ((old, 16), (new, 32)))
    corners = [0, -1]
    torch.testing.assert_close(resized[corners][:, corners], table[corners][:, corners])
    names = {name for name in new if "_enc_" not in name and "_emb" not in name and "app_feat" not in name}
    assert all(torch.equal(new[name], old[name]) for name in names if "dict" not in name)


def test_a_level_more_in_front_keeps_the_coarse_levels(weights: tuple[Talker, Path]) -> None:
    talker, path = weights
    finer = replace(TINY, image_size=128, ch_mult=(1, 1, 1, 2), appearance_scales=3)  # scales 16, 32, 64 and 128
    ours = Talker(finer)
    start_from(ours, path)
    old, new = talker.net_g, ours.net_g
    added = len(new.encoder.blocks) - len(old.encoder.blocks)
    assert added > 0
    for mine, given in (
        (new.encoder.blocks[-1], old.encoder.blocks[-1]),
        (new.encoder.blocks[added + 2], old.encoder.blocks[2]),
        (new.generator.blocks[0], old.generator.blocks[0]),
        (new.get_submodule("app_feat_emb_64"), old.get_submodule("app_feat_emb_64")),
        (new.get_submodule("motion_emb")[-1], old.get_submodule("motion_emb")[-1]),  # type: ignore[index]
        (new.get_submodule("to_motion")[-1], old.get_submodule("to_motion")[-1]),  # type: ignore[index]
    ):
        assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), given.parameters(), strict=True))
    assert ours(torch.zeros(1, 3, 128, 128), torch.zeros(1, 3, 128, 128)).prediction.shape == (1, 3, 128, 128)


def test_a_run_starts_from_a_file_once(
    make_config: MakeConfig, weights: tuple[Talker, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talker, path = weights
    config = make_config(run={"init": str(path)})
    train_talker(config, max_steps=0)
    state = torch.load(checkpoints(tmp_path / "run" / "checkpoints")[0], weights_only=True)
    for name, value in talker.net_g.state_dict().items():
        assert torch.equal(state["networks"]["net_g"][name], value)
        assert torch.equal(state["average"][f"net_g.{name}"], value)
    assert "entries taken over" in capsys.readouterr().err
    path.unlink()
    train_talker(config, max_steps=1)  # going on needs the file no more


def test_what_cannot_be_started_from(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="neither a file nor the name of bundled weights"):
        start_from(Talker(TINY), tmp_path / "absent.safetensors")


def test_an_absent_file_is_named_before_clips_are_read(make_config: MakeConfig, tmp_path: Path) -> None:
    path = make_config(data={"root": "nowhere"}, run={"init": str(tmp_path / "first.safetensors")})
    with pytest.raises(ConfigError, match=r"first\.safetensors: no such file"):
        train_talker(path)


@pytest.mark.parametrize(
    "changes",
    [{"motion_compensation": False}, {"appearance_scales": 0}, {"fused_scales": 1}, {"position_embeddings": False}],
    ids=str,
)
def test_a_model_of_fewer_parts_takes_those_that_it_has(
    weights: tuple[Talker, Path], changes: dict[str, object]
) -> None:
    talker, path = weights
    ours = Talker(replace(TINY, **changes))  # type: ignore[arg-type]
    count = len(ours.state_dict())
    assert f"{count} of {count} entries" in start_from(ours, path)
    given = talker.state_dict()
    assert all(torch.equal(value, given[name]) for name, value in ours.state_dict().items())
