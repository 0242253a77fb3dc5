"""The sections of a training configuration, and their settings; the defaults are the paper's (spec section 4)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cbtalk.dataset import Way
from cbtalk.model.config import TalkerConfig

Precision = Literal["fp32", "bf16"]
Schedule = Literal["step", "cosine"]


@dataclass(frozen=True)
class DataConfig:
    """The clips, and how pairs of them are drawn: far apart, near, of unlike expression, or any two frames."""

    root: Path = Path("data/train")
    """Folder of clips: videos, or folders of frames; or of shards."""
    validation: Path | None = None
    """Folder of clips that are only looked at, for previews; without it, those of root."""
    cache: Path | None = None
    """Index of the clips, and decoded frames; default: <output>/frames."""
    source: Way = "decoded"
    """decoded: frames are decoded once and kept; files: read when needed. Shards are read as such."""
    workers: int = 0
    """0: all frames are kept on the device (mapped on the CPU); else processes that stream them to it."""
    horizontal_flip: float = 0.5
    """Probability that a pair is mirrored."""
    time_flip: float = 0.5
    """Probability that the frames of a pair change places."""
    far_pairs: float = 0.0
    """Share of pairs at least half a clip apart."""
    near_pairs: float = 0.0
    """Share of pairs within a second."""
    expressive_pairs: float = 0.0
    """Share of a closed and an opened mouth, or closed and opened eyes; needs guidance.model."""
    min_frames: int = 2
    """Shorter clips are held back."""
    min_change: float = 0.0
    """Clips that differ less from their first frame are held back: mean, in levels of 255."""


@dataclass(frozen=True)
class AugmentConfig:
    """Strength of the random changes; 0 is off. Colour and geometry: both frames alike; blur and jpeg: the source."""

    brightness: float = 0.0
    """Relative."""
    contrast: float = 0.0
    """Relative."""
    saturation: float = 0.0
    """Relative."""
    hue: float = 0.0
    """In turns."""
    white_balance: float = 0.0
    """Relative gain of each channel."""
    scale: float = 0.0
    """Relative."""
    shift: float = 0.0
    """In sides of the image."""
    rotation: float = 0.0
    """In degrees."""
    blur: float = 0.0
    """Standard deviation in pixels."""
    jpeg: float = 0.0
    """In times the quantisation of quality 50."""


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam, one for each of the three networks.

    The learning rate is multiplied by `gamma` at each milestone ("step"), or falls along half a cosine until the last
    step of the run ("cosine"), to `final` of itself.
    """

    learning_rate: float = 8e-5
    """That of all three, before schedule and warm-up."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Adam's decay of the two moments."""
    eps: float = 1e-8
    """Adam's epsilon."""
    schedule: Schedule = "step"
    """The learning rate falls at milestones, or along half a cosine."""
    final: float = 0.0
    """Share of the learning rate that cosine ends with."""
    milestones: tuple[int, ...] = (200_000, 225_000)
    """Steps after which the learning rate is multiplied by gamma."""
    gamma: float = 0.5
    """Factor at each milestone."""
    warmup_steps: int = 0
    """Steps in which the learning rate rises from 0."""
    clip_norm: float | None = None
    """Largest norm of the gradient of each network; without it, any."""


@dataclass(frozen=True)
class LossConfig:
    """Weight of each term; a term of weight 0 is not computed."""

    pixel: float = 1.0
    """Mean absolute difference of the pixels."""
    changed: float = 0.0
    """The same, each pixel weighted by how much the driving frame differs from the source there."""
    expression: float = 0.0
    """The same, each pixel weighted by how near mouth and eyes it lies; needs guidance.model."""
    warped: float = 0.0
    """Mean absolute difference of the source's pixels under the last flow; needs model.source_pixels."""
    perceptual: float = 1.0
    """Distance of VGG features; off without perceptual.weights."""
    low_resolution: float = 0.5
    """Weight of pixel and perceptual of a second image, made without fusion; 0: it is not made."""
    motion_code: float = 1.0
    """Losses of the motion codebook."""
    motion_recon: float = 32.0
    """Distance of the motion that the codes alone give from the estimated one."""
    appearance_code: float = 1.0
    """Losses of the appearance codebook."""
    equivariance_value: float = 1.0
    """Keypoints move with the image: their places."""
    equivariance_jacobian: float = 1.0
    """The same: their jacobians."""
    keypoint_distance: float = 1.0
    """Keypoints that lie too near each other; a figure alone, it has no gradient."""
    guidance: float = 0.0
    """Distance of the first keypoints from points of the face; needs guidance.model."""


@dataclass(frozen=True)
class PerceptualConfig:
    """The VGG of the perceptual loss and the downsampling factors of its pyramid."""

    weights: Path | None = None
    """File of VGG16 or VGG19, as torchvision has it (.pth), or its arrays (.npz); without it, the loss is off."""
    scales: tuple[int, ...] = (1, 2, 4, 8)
    """Downsampling factors of the pyramid that VGG sees."""
    window: int | None = None
    """Of a larger level of the pyramid, VGG sees a random square of this side."""
    faces: bool = False
    """VGG sees two windows more, around the mouth and one of the eyes; needs guidance.model."""


@dataclass(frozen=True)
class GuidanceConfig:
    """The first keypoints are guided to mouth, eyes, nose and outline of the faces (`train.landmarks`)."""

    model: Path | None = None
    """MediaPipe's face_landmark_with_attention.tflite."""
    steps: int = 0
    """The first steps of a run train the keypoint detector alone."""
    batches: int = 4
    """Batches of each of those steps: it takes a small share of a step's time, and learns fast."""


@dataclass(frozen=True)
class EquivarianceConfig:
    """Standard deviations of the random transform, and control points along a side."""

    affine: float = 0.05
    """Of the affine part."""
    thin_plate: float = 0.005
    """Of the bending part."""
    points: int = 5
    """Control points along a side."""


@dataclass(frozen=True)
class AdversarialConfig:
    """The discriminator joins after `after_step` steps; weight 0 leaves it out."""

    weight: float = 0.8
    """Weight of the adversarial loss; 0 leaves the discriminator out."""
    after_step: int = 5000
    """Step after which the discriminator joins."""


@dataclass(frozen=True)
class EmaConfig:
    """Moving average of the weights that are kept. The paper averages net_g alone."""

    decay: float = 0.995
    """Share of the average that each step keeps."""
    motion_estimator: bool = False
    """Whether the motion estimator is averaged too."""


@dataclass(frozen=True)
class RunConfig:
    """The start and the end of a run, and what it writes.

    Of several processes (torchrun), each takes its share of `batch_size` pairs and of `threads`; the same pairs are
    seen whatever their number, which may change when a run goes on.
    """

    output: Path = Path("runs/paper")
    """Folder for weights, checkpoints and logs."""
    init: Path | None = None
    """Weights file, or hf:OWNER/NAME, to start from, where shapes fit."""
    frozen: tuple[str, ...] = ()
    """Parts of the talker that stay as they start: motion_estimator, net_g.encoder and the like."""
    steps: int = 250_000
    """Steps of the whole run."""
    batch_size: int = 16
    """Pairs of a step, of all processes together."""
    micro_batches: int = 1
    """A batch in this many parts, gradients summed."""
    synchronise_batch_norm: bool = False
    """Statistics of all processes' images; the paper's: each process its own."""
    seed: int = 0
    """Of all that is drawn at random."""
    precision: Precision = "fp32"
    """Of the arithmetic; bf16 by autocast."""
    device: str = "auto"
    """cpu, cuda, cuda:N, or auto, which takes a GPU if there is one."""
    threads: int | None = None
    """Threads of the CPU; without it, torch's own choice, of several processes all cores."""
    log_every: int = 50
    """Steps between lines of the log; 0: never."""
    sample_every: int = 1000
    """Steps between previews; 0: never."""
    checkpoint_every: int = 2500
    """Steps between checkpoints, of which the end of the run has one too; 0: never."""
    checkpoint_seconds: float | None = None
    """Seconds after which there is a checkpoint, too."""
    keep_checkpoints: int = 3
    """The newest checkpoints that are kept; -1: all."""
    max_bad_steps: int = 10
    """Non-finite steps in a row before the run gives up."""


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
