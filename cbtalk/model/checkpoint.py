"""Weight files: safetensors with the model's configuration in the metadata."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.overrides import TorchFunctionMode

from cbtalk.atomic import atomic_path
from cbtalk.errors import ConfigError, WeightsError
from cbtalk.file_names import utf8_name
from cbtalk.model import hub
from cbtalk.model.config import PRESETS, TalkerConfig
from cbtalk.model.half import cast
from cbtalk.model.talker import Talker

FORMAT = "cbtalk-weights-1"
BUNDLED = Path(__file__).parent.parent / "weights"
NAMED_IN_ERRORS = 5


def load(
    name_or_path: str | os.PathLike[str],
    *,
    pretrained: bool = True,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Talker:
    """A talker in evaluation mode.

    Args:
        name_or_path: a preset ("mini", "paper"), a weights file, or a repository of the Hugging Face Hub, as
            "hf:OWNER/NAME" or "hf:OWNER/NAME@REVISION" (extra hub).
        pretrained: False gives a preset with fresh, untrained parameters.
        dtype: torch.bfloat16 and torch.float16 give a talker for inference in half precision; the weights are cast
            once. Keypoints, coordinates and images are float32 all the same.

    Raises:
        ValueError: another dtype.
        WeightsError: no such preset, file or repository, no bundled weights for the preset, or an unusable file.
        TransferError: the Hub cannot be reached.
    """
    preset = PRESETS.get(name_or_path) if isinstance(name_or_path, str) else None
    if not pretrained:
        if preset is None:
            raise WeightsError(f"{name_or_path}: is not a preset; untrained models exist for {', '.join(PRESETS)}")
        return cast(Talker(preset).eval(), dtype).to(device)
    return cast(load_weights(weights_file(name_or_path)), dtype).to(device)


def bundled() -> list[str]:
    """The names of the presets whose weights are bundled."""
    return [preset for preset in PRESETS if (BUNDLED / f"{preset}.safetensors").is_file()]


def weights_file(name_or_path: str | os.PathLike[str]) -> Path:
    """The weights file of a preset's name or of a repository ("hf:..."), fetched where need be, or the file named.

    Raises WeightsError where a preset has none; of a repository, what `hub.fetch` does.
    """
    preset = str(name_or_path)
    if preset.startswith(hub.PREFIX):
        return hub.fetch(preset)
    if preset not in PRESETS:
        return Path(name_or_path)
    path = BUNDLED / f"{preset}.safetensors"
    if not path.is_file():
        raise WeightsError(
            f"no weights are bundled for {preset!r}; give a weights file "
            "(`cbtalk convert` makes one of the released checkpoints, `cbtalk train` trains one)"
        )
    return path


def save_weights(
    path: str | os.PathLike[str],
    talker: Talker,
    *,
    dtype: torch.dtype = torch.float32,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Writes the talker's parameters, buffers and configuration to `path`, completely or not at all.

    Args:
        dtype: of the floating-point tensors in the file.
        notes: further metadata (the data, the steps, the licence).
    """
    tensors = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in talker.state_dict().items()
    }
    metadata = {**(notes or {}), "format": FORMAT, "config": json.dumps(talker.config.to_dict())}
    with atomic_path(path) as temporary:
        # not save_file: a full disk must show as an OSError, and the file's mode must be the user's
        temporary.write_bytes(save(tensors, metadata))


def load_weights(path: str | os.PathLike[str]) -> Talker:
    """The talker of a weights file, float32, in evaluation mode, on the CPU.

    Raises:
        WeightsError: the file is missing, damaged, of another format, or does not fit its own configuration.
    """
    path = Path(path)
    if not path.exists():
        raise WeightsError(f"{path}: neither a file nor the name of bundled weights; bundled: {', '.join(bundled())}")
    if not path.is_file():
        raise WeightsError(f"{path}: is not a file; give a .safetensors weights file")
    try:
        with utf8_name(Path(path)) as name, safe_open(name, framework="pt") as file:
            talker = _empty_talker(path, file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in _fitting_names(path, talker, file)}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: is damaged or no safetensors file ({error}){_remedy(path)}") from error
    return with_tensors(talker, tensors, path)


def read_notes(path: str | os.PathLike[str]) -> dict[str, str]:
    """The metadata of a weights file."""
    try:
        with utf8_name(Path(path)) as name, safe_open(name, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: is damaged or no safetensors file ({error}){_remedy(Path(path))}") from error


def without_storage(config: TalkerConfig) -> Talker:
    """A talker whose parameters have names and shapes but no memory yet."""
    with torch.device("meta"), _Uninitialized():
        return Talker(config).eval()


class _Uninitialized(TorchFunctionMode):
    """Leaves out what `torch.nn.init` does: of tensors without memory it imports the compiler, for seconds."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return args[0] if args else named["tensor"]
        return function(*args, **named)


def with_tensors(talker: Talker, tensors: Mapping[str, Tensor], path: Path) -> Talker:
    """`talker` (from `without_storage`) with these tensors, whose names and shapes must fit, as its float32 state.

    Raises:
        WeightsError: a tensor holds no floating-point numbers, or some that are not finite.
    """
    state = {}
    for name, expected in talker.state_dict().items():
        tensor = tensors[name]
        if tensor.is_floating_point() != expected.is_floating_point():
            raise WeightsError(f"{path}: {name} holds {tensor.dtype} numbers; the file was not made for this model")
        if not bool(tensor.isfinite().all()):
            raise WeightsError(f"{path}: {name} is not finite; the file is damaged or its training diverged")
        state[name] = tensor.to(expected.dtype)
    talker.load_state_dict(state, assign=True)
    return talker.requires_grad_(True).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def mismatch(expected: Mapping[str, Tensor], found: Mapping[str, tuple[int, ...]]) -> str | None:
    """The fault of the names and shapes found, in one line; None where they are exactly those expected."""
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    reshaped = [
        f"{name} {list(found[name])} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name] != tuple(tensor.shape)
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "wrong shape": reshaped}
    return "; ".join(f"{kind}: {_some(names)}" for kind, names in kinds.items() if names) or None


def _some(names: list[str]) -> str:
    more = len(names) - NAMED_IN_ERRORS
    return ", ".join(names[:NAMED_IN_ERRORS]) + (f" and {more} more" if more > 0 else "")


def _empty_talker(path: Path, metadata: Mapping[str, str]) -> Talker:
    if metadata.get("format") != FORMAT:
        raise WeightsError(f"{path}: is not a cbtalk weights file (its metadata lacks format {FORMAT}){_remedy(path)}")
    try:
        return without_storage(TalkerConfig.from_dict(json.loads(metadata.get("config", "null"))))
    except (ConfigError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: its model configuration cannot be used: {error}") from error


def _fitting_names(path: Path, talker: Talker, file: safe_open) -> list[str]:
    """The names of the file's tensors, which with their shapes must be the talker's; no tensor is read before."""
    names = list(file.keys())
    wrong = mismatch(talker.state_dict(), {name: tuple(file.get_slice(name).get_shape()) for name in names})
    if wrong:
        raise WeightsError(f"{path}: does not fit its own configuration: {wrong}")
    return names


def _remedy(path: Path) -> str:
    if path.suffix in (".pth", ".pt", ".ckpt"):
        return "; make a weights file of it with `cbtalk convert`"
    return "; copy or download it again"
