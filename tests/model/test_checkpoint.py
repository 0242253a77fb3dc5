import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import cbtalk
from cbtalk.errors import WeightsError
from cbtalk.model.checkpoint import FORMAT, load_weights, read_notes, save_weights
from tests.helpers.talkers import TINY, MakeTalker


def test_round_trip_gives_the_same_image(tmp_path: Path, tiny: MakeTalker) -> None:
    talker, image = tiny(), torch.rand(1, 3, 64, 64)
    save_weights(tmp_path / "w.safetensors", talker, notes={"steps": "12"})
    loaded = cbtalk.load(tmp_path / "w.safetensors")
    assert not loaded.training
    assert loaded.config == talker.config
    with torch.no_grad():
        expected = talker.animate(talker.encode_source(image), image)
        assert torch.equal(loaded.animate(loaded.encode_source(image), image), expected)
    assert read_notes(tmp_path / "w.safetensors")["steps"] == "12"
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_half_precision_files_load_as_float32(tmp_path: Path, tiny: MakeTalker) -> None:
    talker = tiny()
    save_weights(tmp_path / "w.safetensors", talker, dtype=torch.float16)
    stored = load_file(tmp_path / "w.safetensors")
    loaded = load_weights(tmp_path / "w.safetensors")
    assert stored["net_g.position_emb_app"].dtype == torch.float16
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert loaded.motion_fingerprint() != talker.motion_fingerprint()  # what keypoints mean did change, by a rounding
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def rewrite(path: Path, tensors: dict[str, torch.Tensor], **config: Any) -> None:
    save_file(tensors, path, metadata={"format": FORMAT, "config": json.dumps({**TINY.to_dict(), **config})})


def test_damaged_and_hostile_files_get_one_clear_line(tmp_path: Path, tiny: MakeTalker) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, tiny())
    good, tensors = path.read_bytes(), load_file(path)
    name = "net_g.generator.blocks.0.weight"
    without = {key: value for key, value in tensors.items() if key != name}

    def refused(reason: str) -> None:
        with pytest.raises(WeightsError, match=reason) as caught:
            load_weights(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    for content in (b"", good[:7], good[:2000], good[:-1], b"\xff" * 100, b"PK\x03\x04 no tensors here", good + b"\0"):
        path.write_bytes(content)
        refused("damaged")
    rewrite(path, without)
    refused(f"missing: {re.escape(name)}")
    rewrite(path, {**tensors, "net_g.extra": torch.zeros(1)})
    refused("unexpected: net_g.extra")
    rewrite(path, {**tensors, name: tensors[name][:1]})
    refused("wrong shape")
    rewrite(path, {**tensors, name: tensors[name].to(torch.int32)})
    refused("int32")
    rewrite(path, {**tensors, name: tensors[name] * float("nan")})
    refused("not finite")
    rewrite(path, tensors, keypoints=5)
    refused("wrong shape")
    rewrite(path, tensors, colour="blue")
    refused("colour")
    rewrite(path, tensors, image_size=65536, nf=65536)  # must not allocate what the configuration asks for
    refused("wrong shape")
    for config in ("[1]", "{", "null", "[" * 100_000):
        save_file(tensors, path, metadata={"format": FORMAT, "config": config})
        refused("configuration")
    save_file(tensors, path)
    refused("not a cbtalk weights file")


def test_what_cannot_be_loaded_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="maxi: neither a file nor the name of bundled weights; bundled: mini"):
        cbtalk.load("maxi")
    with pytest.raises(WeightsError, match="is not a file"):
        cbtalk.load(tmp_path)
    with pytest.raises(WeightsError, match="cbtalk convert"):
        cbtalk.load("paper")
    with pytest.raises(WeightsError, match="not a preset"):
        cbtalk.load(tmp_path, pretrained=False)
    (tmp_path / "net_g_latest.pth").write_bytes(b"pickle")
    with pytest.raises(WeightsError, match="cbtalk convert"):
        cbtalk.load(tmp_path / "net_g_latest.pth")


def test_untrained_presets_load() -> None:
    assert cbtalk.load("mini", pretrained=False).image_size == 256


def test_loading_a_model_does_not_import_the_compiler_of_torch() -> None:
    """It would take as long as torch itself, in every command and every worker."""
    script = (
        "import sys, cbtalk; cbtalk.load('mini'); print([m for m in ('torch._dynamo', 'sympy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "[]\n"
