"""Other people's networks by file: ONNX or TorchScript, each under the name of what it is for."""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cbtalk.errors import WeightsError
from cbtalk.pretrained.model_files import find_file

SETTINGS = "models.toml"
SUFFIXES = (".onnx", ".pt", ".ts", ".torchscript")
Crop = Literal["whole", "face", "aligned"]


@dataclass(frozen=True)
class Input:
    """The image as a network takes it.

    size: height and width in pixels, bilinear with anti-aliasing; 0: as it is. mean, std: of an image in [0, 1], taken
    off and divided by. channels: their order. crop: the whole image; the square around the face, `margin` times the
    longer side of its box; or the face laid on ArcFace's five points. same_person: Euclidean distance below which two
    embeddings are one person's; 0: no such rule.
    """

    size: int = 0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channels: Literal["RGB", "BGR"] = "RGB"
    crop: Crop = "whole"
    margin: float = 1.8
    same_person: float = 0.0


_HALF = (0.5,)  # as mean and standard deviation: an image in [-1, 1]
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PAIRS = ("lpips_alex", "lpips_vgg")  # take two images
WHOLE = (*PAIRS, "inception")  # see whole images, many at once
ROLES = {
    "lpips_alex": Input(0, _HALF, _HALF),
    "lpips_vgg": Input(0, _HALF, _HALF),
    "inception": Input(299, _HALF, _HALF),
    "landmarks": Input(256, crop="face"),
    "arcface": Input(112, _HALF, _HALF, crop="aligned"),
    "openface": Input(96, channels="BGR"),
    "head_pose": Input(224, *_IMAGENET, crop="face", margin=1.2),
    "expression": Input(224, crop="face"),
}


class Network:
    """A network as a function of images (B, 3, H, W) in [0, 1]; the first of its outputs, float32.

    Raises WeightsError at once where the file cannot be read, or does not take such images.
    """

    def __init__(self, path: Path, role: str, taken: Input, device: str) -> None:
        self.taken = taken
        self._path, self._device = path, device
        open_ = _open_onnx if path.suffix == ".onnx" else _open_torchscript
        self._run = open_(path, device)
        size = taken.size or 64
        trial = torch.full((2 if role in WHOLE else 1, 3, size, size), 0.5)
        self.outputs = self(*[trial] * (2 if role in PAIRS else 1)).shape
        if self.outputs[:1] != trial.shape[:1]:
            raise WeightsError(f"{path}: gives {self.outputs} for {len(trial)} images")

    def __call__(self, *images: Tensor) -> NDArray[np.float32]:
        """See the class."""
        try:
            with torch.inference_mode():
                return self._run([self._as_taken(one) for one in images])
        except Exception as error:  # whatever a stranger's network raises
            shape = tuple(images[0].shape)
            raise WeightsError(f"{self._path}: cannot be used on images {shape}: {_first_line(error)}") from error

    def _as_taken(self, images: Tensor) -> Tensor:
        taken = self.taken
        images = images.to(self._device)
        if taken.size and images.shape[-1] != taken.size:
            images = F.interpolate(images, (taken.size, taken.size), mode="bilinear", antialias=True)
        if taken.channels == "BGR":
            images = images.flip(1)
        mean, std = (images.new_tensor(values).view(1, -1, 1, 1) for values in (taken.mean, taken.std))
        return ((images - mean) / std).contiguous()


def find_network(models: Path | None, role: str, device: str) -> Network:
    """The network of a role (`ROLES`) in the folder `models`, with what its models.toml says of it.

    Raises:
        FileNotFoundError: there is none; says which name was looked for.
        ImportError: it is ONNX, and onnxruntime is not installed.
        WeightsError: it is there and cannot be used, or models.toml is wrong.
    """
    file, taken = _settings(models).get(role, ("", ROLES[role]))
    path = find_file(models, *([file] if file else [role + suffix for suffix in SUFFIXES]))
    return Network(path, role, taken, device)


def _settings(models: Path | None) -> dict[str, tuple[str, Input]]:
    """The file (empty: by the role's name) and the input of each role that models.toml speaks of."""
    if models is None or not (models / SETTINGS).is_file():
        return {}
    path = models / SETTINGS
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path}: cannot be read as TOML: {error}") from error
    found = {}
    for role, table in tables.items():
        if role not in ROLES or not isinstance(table, dict):
            raise WeightsError(f"{path}: [{role}] is none of {', '.join(ROLES)}")
        file = table.pop("file", "")
        found[role] = (str(file), _changed(path, role, table))
    return found


def _changed(path: Path, role: str, table: dict[str, Any]) -> Input:
    """The input of a role with what a table of models.toml says."""
    for name, value in table.items():
        if name not in _GOOD:
            raise WeightsError(f"{path}: [{role}] has no {name}; it has file, {', '.join(_GOOD)}")
        if name in ("mean", "std") and not isinstance(value, list):
            table[name] = value = [value]
        if not _GOOD[name](value):
            raise WeightsError(f"{path}: [{role}] {name} cannot be {value!r}")
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in table.items()}
    changed = replace(ROLES[role], **values)
    if role in WHOLE and changed.crop != "whole":
        raise WeightsError(f"{path}: [{role}] sees whole images")
    if role not in WHOLE and not changed.size:
        raise WeightsError(f"{path}: [{role}] needs a size")
    return changed


def _numbers(values: Any) -> bool:
    """Whether these are one number, or one for each channel."""
    return len(values) in (1, 3) and all(isinstance(value, int | float) for value in values)


_GOOD: dict[str, Callable[[Any], bool]] = {
    "size": lambda value: isinstance(value, int) and value >= 0,
    "mean": _numbers,
    "std": lambda values: _numbers(values) and all(values),
    "channels": lambda value: value in ("RGB", "BGR"),
    "crop": lambda value: value in get_args(Crop),
    "margin": lambda value: isinstance(value, int | float) and value > 0,
    "same_person": lambda value: isinstance(value, int | float) and value >= 0,
}


def _open_torchscript(path: Path, device: str) -> Any:
    try:
        network = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read as TorchScript: {_first_line(error)}") from error

    def run(images: list[Tensor]) -> NDArray[np.float32]:
        output = network(*images)
        first = output[0] if isinstance(output, tuple | list) else output
        return first.float().cpu().numpy()

    return run


def _open_onnx(path: Path, device: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    here = onnxruntime.get_available_providers()
    wanted = ["CUDAExecutionProvider"] if device.startswith("cuda") else []
    providers = [*(name for name in wanted if name in here), "CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise WeightsError(f"{path}: cannot be read as ONNX: {_first_line(error)}") from error
    names = [given.name for given in session.get_inputs()]

    def run(images: list[Tensor]) -> NDArray[np.float32]:
        values = [one.cpu().numpy() for one in images]
        return np.asarray(session.run(None, dict(zip(names, values, strict=True)))[0], dtype=np.float32)

    return run


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
