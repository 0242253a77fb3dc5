"""The talker's sizes in one place: every width and resolution of the model derives from a `TalkerConfig`."""

import dataclasses
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

from cbtalk.errors import ConfigError

CodeAllocation = Literal["shared", "disjoint", "unsplit"]
KeypointQuery = Literal["driving", "source_driving", "none"]

KEYPOINT_KERNEL = 7
GUIDED_KEYPOINTS = 16  # the first ones, to which `loss.guidance` gives a place in the face

# A configuration may come from a stranger's file: no count in it can ask for endless work.
WIDEST = 1 << 16
DEEPEST = 64
STRONGEST_FUSION = 10.0
DEPTHS = frozenset({"hourglass_blocks", "residual_blocks", "motion_layers", "appearance_layers"})


@dataclass(frozen=True)
class TalkerConfig:
    """Sizes of the talker and its ablations. The defaults are the paper's model.

    The image is `image_size` pixels square. The motion estimator works on it downsampled by `motion_downsampling`;
    the encoder halves it once per entry of `ch_mult` after the first, down to the latent size.
    """

    image_size: int = 256
    """Height and width of the images, in pixels."""

    # motion estimator
    keypoints: int = 15
    """Number of keypoints."""
    motion_downsampling: int = 4
    """Factor by which the motion estimator's input is smaller than the image."""
    keypoint_expansion: int = 32
    """Channels of the keypoint detector's hourglass, which doubles them from block to block."""
    dense_expansion: int = 64
    """The same of dense motion's hourglass."""
    hourglass_blocks: int = 5
    """Blocks of each hourglass, down and up."""
    hourglass_max: int = 1024
    """Most channels of an hourglass."""

    # encoder and generator
    nf: int = 64
    """Channels of the encoder at full size."""
    ch_mult: tuple[int, ...] = (1, 2, 2, 4)
    """Factors of nf at each halving of the size."""
    residual_blocks: int = 2
    """Residual blocks at each size."""
    norm_groups: int = 32
    """Groups of every group norm; with one channel a group, the last one would erase the mean colour."""

    # codebooks and the transformers that read them
    motion_codes: int = 1024
    """Entries of the motion codebook."""
    motion_dim: int = 32
    """Channels of an entry."""
    motion_layers: int = 2
    """Layers of the transformer that reads it."""
    motion_hidden: int = 128
    """Channels of the network that reads motion."""
    appearance_codes: int = 1024
    """Entries of the appearance codebook."""
    appearance_dim: int = 256
    """Channels of an entry."""
    appearance_layers: int = 2
    """Layers of the transformer that reads it."""
    heads: int = 8
    """Attention heads of both transformers."""

    # beyond the paper
    opening_maps: bool = False
    """The generator sees where mouth and eyes open or close, by the keypoints that `loss.guidance` keeps there."""
    source_pixels: bool = False
    """The image takes the warped source's own pixels where the flow fits."""

    # ablations
    code_allocation: CodeAllocation = "shared"
    """Division of the codebooks' entries among the scales."""
    motion_allocation: CodeAllocation | None = None
    """The same of the motion codes alone; None = as code_allocation."""
    appearance_allocation: CodeAllocation | None = None
    """The same of the appearance codes alone."""
    motion_compensation: bool = True
    """False: the flow is not compensated."""
    appearance_scales: int | None = None
    """Compensate at the first n scales, coarsest first; None = all, 0 = nowhere."""
    keypoint_query: KeypointQuery = "driving"
    """Keypoints that the query of the motion codes sees."""
    motion_encoder: bool = True
    """False: the code meets the flow through one 1 x 1 convolution."""
    detach_motion_query: bool = True
    """No gradient reaches the flow through its embedding."""
    position_embeddings: bool = True
    """False: tokens of both codebooks' transformers have no position."""
    fused_scales: int | None = None
    """Features join the generator at the first n scales; None = all, at least the first."""
    added_features: bool = True
    """False: they modulate the generator's features, and are not added to them as well."""
    fusion_weight: float = 1.0
    """Weight of that modulation."""

    # discriminator
    discriminator_nf: int = 64
    """Channels of the discriminator's first layer."""

    def __post_init__(self) -> None:
        if not isinstance(self.ch_mult, (tuple, list)):
            raise ConfigError(f"ch_mult is {self.ch_mult!r}; it must be a list of whole numbers")
        object.__setattr__(self, "ch_mult", tuple(self.ch_mult))
        self._check_types()
        self._check_sizes()
        self._check_widths()

    @property
    def scales(self) -> tuple[int, ...]:
        """Resolutions at which features are warped, coarsest (the latent) first: (32, 64, 128, 256) in the paper."""
        return tuple(self.image_size >> level for level in reversed(range(len(self.ch_mult))))

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the encoder's feature at each of `scales`."""
        return tuple(self.nf * multiplier for multiplier in reversed(self.ch_mult))

    @property
    def latent_size(self) -> int:
        """Height and width of the encoder's output, and so the root of the number of tokens."""
        return self.scales[0]

    @property
    def motion_size(self) -> int:
        """Height and width of the deformation, the occlusion map and the motion estimator's input."""
        return self.image_size // self.motion_downsampling

    @property
    def pixels_per_unit(self) -> float:
        """Pixels of the deformation per unit of normalised coordinate: 31.5 in the paper."""
        return (self.motion_size - 1) / 2

    @property
    def joining_scales(self) -> tuple[int, ...]:
        """The prefix of `scales` at which features join the generator."""
        return self.scales[: self.fused_scales]

    @property
    def compensated_scales(self) -> tuple[int, ...]:
        """The prefix of `joining_scales` at which appearance is compensated."""
        return self.joining_scales[: self.appearance_scales]

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return {**dataclasses.asdict(self), "ch_mult": list(self.ch_mult)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TalkerConfig":
        """The inverse of `to_dict`; absent keys take the default.

        Raises:
            ConfigError: a key is unknown, or the values contradict each other.
        """
        if not isinstance(values, dict):
            raise ConfigError("the model configuration is not a table of keys and values")
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(str(key) for key in values if key not in known)
        if unknown:
            raise ConfigError(f"unknown model option {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        return cls(**values)

    def _check_types(self) -> None:
        for field in dataclasses.fields(self):
            if field.type is int:
                _check_count(field.name, getattr(self, field.name), DEEPEST if field.name in DEPTHS else WIDEST)
            elif field.type is bool and not isinstance(getattr(self, field.name), bool):
                raise ConfigError(f"{field.name} must be true or false")
        if not self.ch_mult:
            raise ConfigError("ch_mult is empty; it names one multiplier per resolution")
        for multiplier in self.ch_mult:
            _check_count("ch_mult", multiplier, WIDEST)
        self._check_choices()

    def _check_choices(self) -> None:
        allocations = get_args(CodeAllocation)
        for name, allowed in (
            ("code_allocation", allocations),
            ("motion_allocation", (*allocations, None)),
            ("appearance_allocation", (*allocations, None)),
            ("keypoint_query", get_args(KeypointQuery)),
        ):
            if getattr(self, name) not in allowed:
                known = ", ".join(str(value) for value in allowed if value is not None)
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be one of {known}")
        for name, least in (("appearance_scales", 0), ("fused_scales", 1)):
            scales = getattr(self, name)
            if scales is not None and (type(scales) is not int or not least <= scales <= len(self.ch_mult)):
                raise ConfigError(f"{name} is {scales!r}; it must be a number from {least} to {len(self.ch_mult)}")
        weight = self.fusion_weight
        if type(weight) not in (int, float) or not 0 <= weight <= STRONGEST_FUSION:
            raise ConfigError(f"fusion_weight is {weight!r}; it must be a number from 0 to {STRONGEST_FUSION}")

    def _check_sizes(self) -> None:
        halvings = 1 << (len(self.ch_mult) - 1)
        if self.image_size % halvings:
            raise ConfigError(f"image_size {self.image_size} is not a multiple of {halvings}, the halvings by ch_mult")
        if self.image_size % self.motion_downsampling:
            factor = self.motion_downsampling
            raise ConfigError(f"image_size {self.image_size} is not a multiple of motion_downsampling {factor}")
        motion, latent = self.motion_size, self.latent_size
        if motion % (1 << self.hourglass_blocks):
            raise ConfigError(f"{self.hourglass_blocks} hourglass_blocks cannot halve a motion size of {motion}")
        if motion < KEYPOINT_KERNEL:
            raise ConfigError(f"the motion size {motion} leaves no room for a kernel of {KEYPOINT_KERNEL}")
        ratio = motion // latent
        if ratio * latent != motion or ratio & (ratio - 1):
            raise ConfigError(f"the motion size {motion} is not the latent size {latent} times a power of two")

    def _check_widths(self) -> None:
        widths = {"nf * ch_mult": self.channels, "motion_dim": (self.motion_dim,)}
        for name, values in widths.items():
            if any(width % self.norm_groups for width in values):
                raise ConfigError(
                    f"{name} is {values}; every width must be a multiple of norm_groups {self.norm_groups}"
                )
        for name in ("motion_dim", "appearance_dim"):
            if getattr(self, name) % self.heads:
                raise ConfigError(f"{name} {getattr(self, name)} is not a multiple of heads {self.heads}")
        if self.opening_maps and self.keypoints < GUIDED_KEYPOINTS:
            raise ConfigError(f"opening_maps needs {GUIDED_KEYPOINTS} keypoints or more; keypoints is {self.keypoints}")
        if self.motion_hidden % 4:
            raise ConfigError(f"motion_hidden {self.motion_hidden} is not a multiple of 4")
        if min(self.motion_codes, self.appearance_codes) < len(self.scales):
            raise ConfigError(f"a codebook needs at least one code per scale ({len(self.scales)})")


def _check_count(name: str, value: object, limit: int) -> None:
    if type(value) is not int or not 1 <= value <= limit:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number from 1 to {limit}")


PRESETS = MappingProxyType(
    {
        "paper": TalkerConfig(),
        "mini": TalkerConfig(
            keypoints=20,
            keypoint_expansion=16,
            dense_expansion=32,
            hourglass_blocks=4,
            hourglass_max=256,
            nf=16,
            ch_mult=(1, 2, 4, 4, 8),
            residual_blocks=1,
            norm_groups=8,
            motion_codes=256,
            motion_layers=1,
            motion_hidden=64,
            appearance_codes=256,
            appearance_dim=128,
            appearance_layers=1,
            appearance_scales=4,
            discriminator_nf=32,
        ),
    }
)
