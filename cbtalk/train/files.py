"""Files, folders and packages that a training configuration needs, all looked for before any work."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from cbtalk.errors import ConfigError
from cbtalk.model.checkpoint import weights_file
from cbtalk.train.config import face_users
from cbtalk.train.sections import TrainConfig

MESH_PACKAGES = ("ai_edge_litert", "flatbuffers")


def check_files(config: TrainConfig, *, starting: bool, evaluated: Path | None = None) -> None:
    """Looks for everything that a run reads.

    Args:
        starting: the run begins, from `run.init` where that is set; one that goes on does not read it.
        evaluated: another folder of clips, that of an option --data.

    Raises:
        ConfigError: names all that is missing by its setting, each with what can be done instead.
    """
    missing = list(_missing(config, starting, evaluated))
    if missing:
        count = f"{len(missing)} files or folders are missing: " if len(missing) > 1 else ""
        raise ConfigError(count + "; ".join(missing))


def _missing(config: TrainConfig, starting: bool, evaluated: Path | None) -> Iterator[str]:
    data, init, vgg, mesh = config.data, config.run.init, config.perceptual.weights, config.guidance.model
    if not data.root.is_dir():
        yield f"data.root {data.root}: not a folder of clips (--data-root FOLDER names yours)"
    if data.validation is not None and not data.validation.is_dir():
        yield f"data.validation {data.validation}: not a folder of clips (--data.validation none leaves it out)"
    if evaluated is not None and not evaluated.is_dir():
        yield f"--data {evaluated}: not a folder of clips"
    if config.loss.perceptual and vgg is not None and not vgg.is_file():
        yield (
            f"perceptual.weights {vgg}: no such file; it must be VGG16 or VGG19 "
            "(--perceptual.weights none leaves that loss out)"
        )
    if starting and init is not None and not weights_file(init).is_file():
        yield f"run.init {init}: no such file; train it first, or start from nothing (--run.init none)"
    if mesh is not None and (users := face_users(config)):
        without = f"({_without_faces(config, users)} does without)"
        if not mesh.is_file():
            yield f"guidance.model {mesh}: no such file; it must be MediaPipe's face mesh {without}"
        for package in MESH_PACKAGES:
            if find_spec(package) is None:
                yield f"guidance.model needs the package {package}: pip install 'cbtalk[evaluate]' {without}"
                break


def _without_faces(config: TrainConfig, users: list[str]) -> str:
    """The arguments that turn off all that needs points of faces."""
    words = ["--perceptual.no-faces" if user == "perceptual.faces" else f"--{user} 0" for user in users]
    if config.guidance.steps:
        words.append("--guidance.steps 0")
    return " ".join(words).replace("_", "-")
