import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import cbtalk
from cbtalk.errors import WeightsError
from cbtalk.model import convert
from cbtalk.model.checkpoint import without_storage
from tests.helpers.talkers import TINY, MakeTalker

State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _tiny_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """The converter's model at a size that tests can afford."""
    monkeypatch.setattr(convert, "PRESETS", {"paper": TINY})


@pytest.fixture
def parts(tiny: MakeTalker) -> tuple[State, State]:
    talker = tiny()
    return talker.net_g.state_dict(), talker.motion_estimator.state_dict()


def write(folder: Path, net_g: Any, motion: Any) -> dict[str, Any]:
    torch.save(net_g, folder / "net_g_latest.pth")
    torch.save(motion, folder / "net_motion_estimator_latest.pth")
    return {
        "net_g": folder / "net_g_latest.pth",
        "motion": folder / "net_motion_estimator_latest.pth",
        "output": folder / "w.safetensors",
    }


def halved(state: State) -> State:
    return {name: tensor / 2 if tensor.is_floating_point() else tensor for name, tensor in state.items()}


@pytest.mark.parametrize(("key", "taken"), [("auto", "params_ema"), ("params_ema", "params_ema"), ("params", "params")])
def test_takes_the_parameters_asked_for(key: Any, taken: str, tmp_path: Path, parts: tuple[State, State]) -> None:
    generator, estimator = parts
    checkpoint = {"params": halved(generator), "params_ema": generator}
    reports = convert.convert_checkpoints(**write(tmp_path, checkpoint, {"params": estimator}), param_key=key)
    loaded = cbtalk.load(tmp_path / "w.safetensors")
    for name, tensor in loaded.net_g.state_dict().items():
        assert torch.equal(tensor, checkpoint[taken][name])
    for name, tensor in loaded.motion_estimator.state_dict().items():
        assert torch.equal(tensor, estimator[name])
    assert [report.key for report in reports] == [taken, "params"]
    assert taken in str(reports[0])


def test_removes_the_prefix_of_parallel_training(tmp_path: Path, parts: tuple[State, State]) -> None:
    generator, estimator = ({f"module.{name}": tensor for name, tensor in part.items()} for part in parts)
    reports = convert.convert_checkpoints(**write(tmp_path, {"params": generator}, {"params": estimator}))
    assert all(report.prefixed and "module." in str(report) for report in reports)
    assert set(cbtalk.load(tmp_path / "w.safetensors").net_g.state_dict()) == set(parts[0])


def test_reports_every_kind_of_mismatch(tmp_path: Path, parts: tuple[State, State]) -> None:
    generator, estimator = parts
    generator = dict(generator)
    moved = generator.pop("position_emb_app")
    generator |= {"position_emb": moved, "driving_kp_enc.bias": torch.zeros(3)}
    files = write(tmp_path, {"params": generator}, {"params": estimator})
    with pytest.raises(WeightsError) as caught:
        convert.convert_checkpoints(**files)
    message = str(caught.value)
    assert "missing: position_emb_app" in message
    assert "unexpected: position_emb;" in message
    assert "wrong shape: driving_kp_enc.bias [3] instead of [32]" in message
    assert not files["output"].exists()


def test_the_files_in_the_wrong_order_are_refused(tmp_path: Path, parts: tuple[State, State]) -> None:
    with pytest.raises(WeightsError, match="net_g_latest"):
        convert.convert_checkpoints(**write(tmp_path, {"params": parts[1]}, {"params": parts[0]}))


class Malicious:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("executed",)


def test_a_pickle_that_runs_code_is_refused(
    tmp_path: Path, parts: tuple[State, State], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write(tmp_path, {"params": parts[0], "extra": Malicious()}, {"params": parts[1]})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=r"net_g_latest.*is damaged or holds more than tensors") as caught:
        convert.convert_checkpoints(**files)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [{"params": [1, 2]}, {"state": {}}, [1, 2], {"params": {"a": 1}}], ids=str)
def test_other_checkpoints_are_refused(content: Any, tmp_path: Path, parts: tuple[State, State]) -> None:
    with pytest.raises(WeightsError, match="net_g_latest"):
        convert.convert_checkpoints(**write(tmp_path, content, {"params": parts[1]}))


def test_damaged_checkpoints_are_refused(tmp_path: Path, parts: tuple[State, State]) -> None:
    files = write(tmp_path, {"params": parts[0]}, {"params": parts[1]})
    good = files["net_g"].read_bytes()
    for content in (b"", b"text", good[:-1000], good[:1000]):
        files["net_g"].write_bytes(content)
        with pytest.raises(WeightsError, match="net_g_latest"):
            convert.convert_checkpoints(**files)
    files["net_g"].unlink()
    with pytest.raises(WeightsError, match="no such file"):
        convert.convert_checkpoints(**files)


def test_the_tiny_paper_is_what_the_converter_expects(parts: tuple[State, State]) -> None:
    assert set(without_storage(TINY).net_g.state_dict()) == set(parts[0])
