"""The training configuration: a YAML file, section by section; the defaults are the paper's (spec section 4)."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

from cbtalk.dataset import Way
from cbtalk.errors import ConfigError
from cbtalk.model.config import PRESETS, TalkerConfig
from cbtalk.options.parsing import parse
from cbtalk.train.config_ranges import check_ranges
from cbtalk.train.face_points import POINTS

Precision = Literal["fp32", "bf16"]
Schedule = Literal["step", "cosine"]
T = TypeVar("T")


@dataclass(frozen=True)
class DataConfig:
    """The clips, and how pairs of them are drawn: far apart, near, of unlike expression, or any two frames."""

    root: Path = Path("data/train")
    validation: Path | None = None  # clips that are only looked at
    cache: Path | None = None  # index of the clips, and decoded frames; default: <output>/frames
    source: Way = "decoded"  # frames decoded once and kept; "files": read when needed; shards in root are read as such
    workers: int = 0  # 0: all frames are kept on the device (mapped on the CPU); else processes that stream them to it
    horizontal_flip: float = 0.5  # probability
    time_flip: float = 0.5
    far_pairs: float = 0.0  # share of pairs at least half a clip apart
    near_pairs: float = 0.0  # share of pairs within a second
    expressive_pairs: float = 0.0  # share of a closed and an opened mouth, or closed and opened eyes; guidance.model
    min_frames: int = 2  # shorter clips are held back,
    min_change: float = 0.0  # and those that differ less from their first frame: mean, in levels of 255


@dataclass(frozen=True)
class AugmentConfig:
    """Strength of the random changes; 0 is off. Colour and geometry: both frames alike; blur and jpeg: the source."""

    brightness: float = 0.0  # relative, as contrast, saturation and white_balance (each channel's gain)
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0  # turns
    white_balance: float = 0.0
    scale: float = 0.0  # relative
    shift: float = 0.0  # of the image's side
    rotation: float = 0.0  # degrees
    blur: float = 0.0  # standard deviation in pixels
    jpeg: float = 0.0  # times the quantisation of quality 50


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam, one for each of the three networks.

    The learning rate is multiplied by `gamma` at each milestone ("step"), or falls along half a cosine until the last
    step of the run ("cosine"), to `final` of itself.
    """

    learning_rate: float = 8e-5
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    schedule: Schedule = "step"
    final: float = 0.0
    milestones: tuple[int, ...] = (200_000, 225_000)
    gamma: float = 0.5
    warmup_steps: int = 0
    clip_norm: float | None = None  # of the gradient of each network


@dataclass(frozen=True)
class LossConfig:
    """Weight of each term; a term of weight 0 is not computed."""

    pixel: float = 1.0
    changed: float = 0.0  # pixels, each weighted by how much the driving frame differs from the source there
    expression: float = 0.0  # pixels, each weighted by how near mouth and eyes it lies; needs guidance.model
    perceptual: float = 1.0
    low_resolution: float = 0.5
    motion_code: float = 1.0
    motion_recon: float = 32.0
    appearance_code: float = 1.0
    equivariance_value: float = 1.0
    equivariance_jacobian: float = 1.0
    keypoint_distance: float = 1.0
    guidance: float = 0.0  # distance of the first keypoints from points of the face


@dataclass(frozen=True)
class PerceptualConfig:
    """The VGG of the perceptual loss and the downsampling factors of its pyramid."""

    weights: Path | None = None
    scales: tuple[int, ...] = (1, 2, 4, 8)
    window: int | None = None  # of a larger level of the pyramid, VGG sees a random square of this side,
    faces: bool = False  # and two more, around the mouth and one of the eyes; needs guidance.model


@dataclass(frozen=True)
class GuidanceConfig:
    """The first keypoints are guided to mouth, eyes, nose and outline of the faces (`train.landmarks`)."""

    model: Path | None = None  # MediaPipe's face_landmark_with_attention.tflite
    steps: int = 0  # the first steps of a run train the keypoint detector alone,
    batches: int = 4  # with so many batches each: it takes a small share of a step's time, and learns fast


@dataclass(frozen=True)
class EquivarianceConfig:
    """Standard deviations of the random transform, and control points along a side."""

    affine: float = 0.05
    thin_plate: float = 0.005
    points: int = 5


@dataclass(frozen=True)
class AdversarialConfig:
    """The discriminator joins after `after_step` steps; weight 0 leaves it out."""

    weight: float = 0.8
    after_step: int = 5000


@dataclass(frozen=True)
class EmaConfig:
    """Moving average of the weights that are kept. The paper averages net_g alone."""

    decay: float = 0.995
    motion_estimator: bool = False


@dataclass(frozen=True)
class RunConfig:
    """The start and the end of a run, and what it writes.

    Of several processes (torchrun), each takes its share of `batch_size` pairs and of `threads`; the same pairs are
    seen whatever their number, which may change when a run goes on.
    """

    output: Path = Path("runs/paper")
    init: Path | None = None  # weights file, or hf:OWNER/NAME, to start from, where shapes fit
    frozen: tuple[str, ...] = ()  # parts of the talker that stay as they start: motion_estimator, net_g.encoder, ...
    steps: int = 250_000
    batch_size: int = 16  # pairs of a step, of all processes together
    micro_batches: int = 1  # a batch in this many parts, gradients summed
    synchronise_batch_norm: bool = False  # statistics of all processes' images; the paper's: each process its own
    seed: int = 0
    precision: Precision = "fp32"
    device: str = "auto"
    threads: int | None = None  # of the CPU; default: torch's own choice, of several processes all cores
    log_every: int = 50  # steps, as the two below; 0: never
    sample_every: int = 1000
    checkpoint_every: int = 2500  # and at the end of the run
    checkpoint_seconds: float | None = None  # also whenever this much time has passed
    keep_checkpoints: int = 3  # the newest; -1: all
    max_bad_steps: int = 10  # non-finite steps in a row before the run gives up


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    model: TalkerConfig = field(default_factory=TalkerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    equivariance: EquivarianceConfig = field(default_factory=EquivarianceConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    run: RunConfig = field(default_factory=RunConfig)


def load_config(path: Path, settings: Sequence[str] = ()) -> TrainConfig:
    """Reads a YAML training configuration; relative paths in it are relative to the working directory.

    Args:
        settings: changes to it, as on the command line: `--run.steps`, `10`, ...

    Raises:
        ConfigError: the file is absent or no YAML table, a key is unknown, or a value has the wrong type or is out of
            its range.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; name a configuration file (.yaml)") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from error
    try:
        config = parse_config({} if values is None else values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if settings:
        config = parse(TrainConfig, "cbtalk train CONFIG", settings, default=config)
        check_config(config)
    return config


def parse_config(values: Any) -> TrainConfig:
    """The configuration of plain values, as YAML gives them. Raises ConfigError."""
    sections = {section.name: section for section in dataclasses.fields(TrainConfig)}
    _check_keys(values, set(sections), "the file")
    types = get_type_hints(TrainConfig)
    parsed: dict[str, Any] = {}
    for name, section in values.items():
        parsed[name] = _model(section) if name == "model" else _section(types[name], section, name)
    config = TrainConfig(**parsed)
    check_config(config)
    return config


def check_config(config: TrainConfig) -> None:
    """Raises ConfigError for numbers out of their ranges, and settings that contradict each other."""
    check_ranges(config)
    if config.run.batch_size % config.run.micro_batches:
        raise ConfigError(
            f"run.batch_size {config.run.batch_size} is not a multiple of run.micro_batches {config.run.micro_batches}"
        )
    if config.data.source == "files" and not config.data.workers:
        raise ConfigError("data.source files needs data.workers of 1 or more, the processes that read the files")
    if config.guidance.steps and not config.loss.guidance:
        raise ConfigError("guidance.steps needs loss.guidance: the keypoint detector has nothing else to learn from")
    if config.guidance.model is None and (users := face_users(config)):
        raise ConfigError(f"{', '.join(users)} needs guidance.model, MediaPipe's face mesh")
    if config.loss.guidance and config.model.keypoints < len(POINTS):
        raise ConfigError(f"loss.guidance needs model.keypoints of {len(POINTS)} or more")


def face_users(config: TrainConfig) -> list[str]:
    """The settings in use that need the points of faces."""
    users = {
        "loss.guidance": config.loss.guidance,
        "loss.expression": config.loss.expression,
        "perceptual.faces": config.perceptual.faces,
        "data.expressive_pairs": config.data.expressive_pairs,
    }
    return [name for name, value in users.items() if value]


def _model(section: Any) -> TalkerConfig:
    """A preset's name, or a table of a `preset` and changes to it."""
    if isinstance(section, str):
        section = {"preset": section}
    if not isinstance(section, dict):
        raise ConfigError("model: a preset's name or a table is expected")
    preset = section.get("preset", "paper")
    if preset not in PRESETS:
        raise ConfigError(f"model.preset is {preset!r}; known: {', '.join(PRESETS)}")
    changes = {key: value for key, value in section.items() if key != "preset"}
    try:
        return TalkerConfig.from_dict({**PRESETS[preset].to_dict(), **changes})
    except ConfigError as error:
        raise ConfigError(f"model: {error}") from error


def _section(kind: type[T], section: Any, name: str) -> T:
    types = get_type_hints(kind)
    _check_keys(section, set(types), name)
    return kind(**{key: _value(types[key], value, f"{name}.{key}") for key, value in section.items()})


def _check_keys(values: Any, known: set[str], where: str) -> None:
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: a table of keys and values is expected")
    unknown = sorted(str(key) for key in values if key not in known)
    if unknown:
        raise ConfigError(f"unknown key {', '.join(unknown)} in {where}; known: {', '.join(sorted(known))}")


def _value(kind: Any, value: Any, name: str) -> Any:
    """`value` as `kind`; YAML reads `1e-4` as text, so numbers are taken from text too."""
    options = get_args(kind)
    if type(None) in options:
        return None if value is None else _value(options[0], value, name)
    try:
        if get_origin(kind) is Literal and value in options:
            return value
        if (
            get_origin(kind) is tuple
            and isinstance(value, (list, tuple))
            and (... in options or len(value) == len(options))
        ):
            return tuple(_value(options[0], entry, name) for entry in value)
        if kind is float and not isinstance(value, bool):
            return float(value)
        if (kind is int or kind is bool) and type(value) is kind:
            return value
        if (kind is str or kind is Path) and isinstance(value, str):
            return kind(value)
    except (TypeError, ValueError):
        pass
    expected = " or ".join(options) if get_origin(kind) is Literal else getattr(kind, "__name__", str(kind))
    raise ConfigError(f"{name} is {value!r}; expected {expected}")
