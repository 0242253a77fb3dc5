"""The files of an exported talker, each written as a whole or not at all."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from importlib import import_module
from pathlib import Path

import torch
from torch.export import ExportedProgram

from cbtalk.atomic import atomic_path
from cbtalk.errors import ConfigError, OutputError
from cbtalk.export.functions import programs, source_names
from cbtalk.model.talker import Talker

OPSET = 20  # of ONNX; the first in which GridSample is what flow_warp needs


def write_torch(talker: Talker, folder: Path) -> list[Path]:
    """Writes encode.pt2 and animate.pt2 for `torch.export.load`, which needs torch alone; returns the files.

    Args:
        talker: in float32.
        folder: is made.

    Raises:
        ConfigError: a talker in half precision.
        OutputError: the folder cannot be made or written.
    """
    written = []
    for name, program in _programs(talker, folder).items():
        path = folder / f"{name}.pt2"
        with atomic_path(path) as temporary, temporary.open("wb") as file, _quiet():
            torch.export.save(program, file)
        written.append(path)
    return written


def write_onnx(talker: Talker, folder: Path) -> list[Path]:
    """Writes encode.onnx and animate.onnx, of the standard operators of opset 20; returns the files.

    Args and errors as of `write_torch`, and ConfigError where onnx or onnxscript is not installed.
    """
    for needed in ("onnx", "onnxscript"):
        try:
            import_module(needed)
        except ModuleNotFoundError as missing:
            raise ConfigError(f"ONNX files need {needed}: pip install 'cbtalk[export]'") from missing
    state = source_names(talker)
    names = {
        "encode": (["source"], state),
        "animate": (["driving", "reference_keypoints", "reference_jacobians", *state], ["frames"]),
    }
    written = []
    for name, program in _programs(talker, folder).items():
        path = folder / f"{name}.onnx"
        with atomic_path(path) as temporary, _quiet():
            _convert(program, *names[name], temporary)
        written.append(path)
    return written


def _convert(program: ExportedProgram, inputs: list[str], outputs: list[str], path: Path) -> None:
    converted = torch.onnx.export(
        program, input_names=inputs, output_names=outputs, opset_version=OPSET, dynamo=True, verbose=False
    )
    assert converted is not None
    converted.save(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch warns itself of."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _programs(talker: Talker, folder: Path) -> dict[str, ExportedProgram]:
    if any(parameter.dtype != torch.float32 for parameter in talker.parameters()):
        raise ConfigError("a talker in half precision cannot be exported; load it in float32")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}; choose another folder") from error
    return programs(deepcopy(talker).to("cpu").eval().requires_grad_(False))
