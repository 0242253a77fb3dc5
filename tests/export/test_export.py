"""Exported talkers: the same images as cbtalk makes, in programs that know nothing of cbtalk."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from cbtalk.cli import main
from cbtalk.errors import ConfigError, OutputError
from cbtalk.export import write_onnx, write_torch
from cbtalk.model.checkpoint import save_weights
from cbtalk.model.half import cast
from cbtalk.model.talker import Talker
from tests.model.conftest import make_tiny

CHANGES: list[dict[str, Any]] = [
    {"opening_maps": True, "keypoints": 16, "appearance_scales": 1, "keypoint_query": "source_driving"},
    {"source_pixels": True, "opening_maps": True, "keypoints": 16},
    {"motion_compensation": False, "appearance_scales": 0},
]


def noise(count: int, size: int, seed: int) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def rendered(talker: Talker, source: Tensor, first: Tensor, driving: Tensor, *, relative: bool) -> Tensor:
    with torch.no_grad():
        state = talker.encode_source(source)
        reference = talker.keypoints(first) if relative else None
        return talker.animate(state, driving, reference=reference).clamp(-1, 1)


class Torch:
    """The files for torch as functions of arrays."""

    def __init__(self, folder: Path) -> None:
        self._encode, self._animate = (
            torch.export.load(folder / f"{name}.pt2").module() for name in ("encode", "animate")
        )

    def encode(self, source: Tensor) -> list[Tensor]:
        return list(self._encode(source))

    def animate(self, *inputs: Tensor) -> Tensor:
        return self._animate(*inputs)


class Onnx:
    """The files for ONNX as functions of tensors, in onnxruntime."""

    def __init__(self, folder: Path) -> None:
        runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
        self._encode, self._animate = (
            runtime.InferenceSession(str(folder / f"{name}.onnx"), providers=["CPUExecutionProvider"])
            for name in ("encode", "animate")
        )

    def encode(self, source: Tensor) -> list[Tensor]:
        return [torch.from_numpy(array) for array in self._run(self._encode, source)]

    def animate(self, *inputs: Tensor) -> Tensor:
        return torch.from_numpy(self._run(self._animate, *inputs)[0])

    @staticmethod
    def _run(session: Any, *inputs: Tensor) -> list[NDArray[np.float32]]:
        names = [given.name for given in session.get_inputs()]
        return session.run(None, dict(zip(names, (tensor.numpy() for tensor in inputs), strict=True)))


def largest_difference(files: Torch | Onnx, talker: Talker) -> float:
    """Of any number of driving frames, by another source than that of the export, in relative and absolute motion."""
    size = talker.image_size
    source, first, driving = noise(1, size, 3), noise(1, size, 4), noise(3, size, 5)
    state = files.encode(source)
    largest = 0.0
    for batch in (1, 3):
        for reference, relative in ((files.encode(first)[:2], True), (state[:2], False)):
            found = files.animate(driving[:batch], *reference, *state)
            expected = rendered(talker, source, first, driving[:batch], relative=relative)
            assert found.shape == expected.shape and found.isfinite().all()
            largest = max(largest, float((found - expected).abs().max()))
    return largest


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both kinds of files, as the command writes them."""
    for needed in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(needed, reason=f"{needed} is not installed")
    folder = tmp_path_factory.mktemp("exported")
    save_weights(folder / "tiny.safetensors", make_tiny())
    words = ["export", "--weights", str(folder / "tiny.safetensors")]
    assert main([*words, "--onnx", str(folder), "--torch", str(folder)]) == 0
    return folder


@pytest.mark.slow
def test_the_command_writes_two_files_each(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {"tiny.safetensors", "encode.onnx", "animate.onnx", "encode.pt2", "animate.pt2"}
    assert {path.name for path in exported.iterdir()} == names
    assert main(["export"]) == 2
    assert "--onnx" in capsys.readouterr().err


@pytest.mark.slow
def test_onnxruntime_makes_the_same_images(exported: Path) -> None:
    assert largest_difference(Onnx(exported), make_tiny()) < 1e-3


@pytest.mark.slow
def test_torch_makes_the_same_images(exported: Path) -> None:
    assert largest_difference(Torch(exported), make_tiny()) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_other_models_are_exported(changes: dict[str, Any], tmp_path: Path) -> None:
    talker = make_tiny(**changes)
    assert [path.name for path in write_torch(talker, tmp_path / "out")] == ["encode.pt2", "animate.pt2"]
    assert largest_difference(Torch(tmp_path / "out"), talker) < 1e-3


@pytest.mark.slow
def test_onnx_files_have_standard_operators_and_names(exported: Path) -> None:
    import onnx

    for name in ("encode", "animate"):
        model = onnx.load(exported / f"{name}.onnx")
        onnx.checker.check_model(model)
        assert {node.domain for node in model.graph.node} == {""}
        assert {opset.domain for opset in model.opset_import} == {""} and not model.functions
    names = [given.name for given in model.graph.input]
    assert names[:4] == ["driving", "reference_keypoints", "reference_jacobians", "source_keypoints"]


@pytest.mark.slow
def test_torch_files_need_no_cbtalk(exported: Path, tmp_path: Path) -> None:
    code = """
import sys, torch
encode = torch.export.load(sys.argv[1]).module()
assert len(encode(torch.zeros(1, 3, 64, 64))) > 3 and "cbtalk" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, exported / "encode.pt2"], check=True, cwd=tmp_path)


def test_what_cannot_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="half precision"):
        write_torch(cast(make_tiny(), torch.bfloat16), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file: cannot be made"):
        write_torch(make_tiny(), tmp_path / "file")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"pip install 'cbtalk\[export\]'"):
        write_onnx(make_tiny(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
